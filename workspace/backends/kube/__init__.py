"""Kubernetes as the backend of pods sees it: its API, its words, and the agent that asks it."""
