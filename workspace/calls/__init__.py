"""What can be asked of one desktop, by kind: the methods of :class:`workspace.desktop.Desktop`."""
