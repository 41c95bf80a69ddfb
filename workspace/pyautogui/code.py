"""Code strings made of pyautogui's calls, played without executing them on this machine.

The code is parsed, never compiled or run: what follows is an interpreter for the few constructs
that such strings are made of. Every name is looked up in a table made here. Values are numbers,
text and short lists of them; they cannot grow, for there is no power, no text arithmetic, and no
number beyond :data:`MAX_NUMBER`.

A program is played twice: first as a rehearsal in which no call is made and what a call would tell
is not known, then in earnest. So what the rehearsal refuses is refused before anything was done.
"""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from workspace.errors import InvalidRequest, TooLarge
from workspace.pyautogui.calls import PyAutoGUI
from workspace.pyautogui.player import MAX_SECONDS
from workspace.sync import SyncDesktop

MAX_CODE = 100_000  # characters
MAX_STEPS = 10_000
MAX_ROUNDS = 1000  # of one loop
MAX_NUMBER = 10**12
_MAX_DEPTH = 30
_MAX_VALUES = 200_000  # looked at in all, loops counted

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {  # Any: numbers
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class _Unknown:
    """A number that a call will tell, in a rehearsal."""


_UNKNOWN = _Unknown()
# What a call tells, as far as a rehearsal knows it; every other call tells nothing.
_TOLD: Mapping[str, object] = {
    "position": (_UNKNOWN, _UNKNOWN),
    "size": (_UNKNOWN, _UNKNOWN),
    "pixel": (_UNKNOWN, _UNKNOWN, _UNKNOWN),
    "onScreen": _UNKNOWN,
    "pixelMatchesColor": _UNKNOWN,
}
_CONSTRUCTS: Mapping[type[ast.AST], str] = {
    ast.Import: "an import of anything but pyautogui and time",
    ast.ImportFrom: "an import of anything but pyautogui and time",
    ast.FunctionDef: "a function of its own",
    ast.ClassDef: "a class of its own",
    ast.AsyncFunctionDef: "a function of its own",
    ast.Lambda: "a lambda",
    ast.While: "a while loop",
    ast.If: "an if",
    ast.Try: "a try",
    ast.With: "a with of anything but pyautogui.hold(...)",
    ast.For: "a for of anything but one name over range(n)",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "a walrus",
    ast.Starred: "a *argument",
    ast.BinOp: "this operator",
    ast.UnaryOp: "this operator",
    ast.BoolOp: "and, or",
    ast.Compare: "a comparison",
    ast.IfExp: "an if",
    ast.Subscript: "an index",
    ast.Attribute: "an attribute",
    ast.Await: "await",
    ast.Assign: "such an assignment",
    ast.AugAssign: "such an assignment",
    ast.AnnAssign: "such an assignment",
    ast.Constant: "such a constant",
    ast.Expr: "a statement that is no call",
}


def run(code: str, desktop: SyncDesktop) -> None:
    """Play ``code``: imports of pyautogui and time, calls of pyautogui's functions with plain
    arguments, names for numbers and text, ``for ... in range(n)``, ``with pyautogui.hold(...)``,
    ``pyautogui.PAUSE = ...``.

    Raises:
        InvalidRequest: it has something else in it, and nothing was done; the message names the
            line and what is not taken.
        CarrelError: as the calls themselves do; what came before was done.
    """
    if len(code) > MAX_CODE:
        raise TooLarge(f"The code is longer than {MAX_CODE} characters.")
    try:
        program = ast.parse(code)
    except SyntaxError as error:
        raise InvalidRequest(f"Line {error.lineno or 1}: {error.msg}.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidRequest("The code cannot be parsed.") from error
    gui = PyAutoGUI(desktop)
    _Performance(gui, is_rehearsal=True).play(program.body)
    _Performance(gui, is_rehearsal=False).play(program.body)


def _table(gui: PyAutoGUI) -> Mapping[str, Callable[..., object]]:
    """All the functions that a program can reach. None of them touches a file of this machine."""

    def screenshot(*, region: Sequence[float] | None = None) -> None:
        gui.screenshot(region=region)

    return {
        **{"position": gui.position, "size": gui.size, "onScreen": gui.onScreen},
        **{"pixel": gui.pixel, "pixelMatchesColor": gui.pixelMatchesColor},
        **{"moveTo": gui.moveTo, "moveRel": gui.moveRel, "move": gui.move},
        **{"dragTo": gui.dragTo, "dragRel": gui.dragRel, "drag": gui.drag},
        **{"click": gui.click, "doubleClick": gui.doubleClick, "tripleClick": gui.tripleClick},
        **{"leftClick": gui.leftClick, "rightClick": gui.rightClick},
        **{"middleClick": gui.middleClick, "mouseDown": gui.mouseDown, "mouseUp": gui.mouseUp},
        **{"scroll": gui.scroll, "vscroll": gui.vscroll, "hscroll": gui.hscroll},
        **{"write": gui.write, "typewrite": gui.typewrite, "press": gui.press},
        **{"keyDown": gui.keyDown, "keyUp": gui.keyUp, "hotkey": gui.hotkey},
        **{"hold": gui.hold, "sleep": gui.sleep, "screenshot": screenshot},
    }


class _Performance:
    """One playing of a program: its names, and how many steps it has taken."""

    def __init__(self, gui: PyAutoGUI, *, is_rehearsal: bool) -> None:
        self._gui = gui
        self._is_rehearsal = is_rehearsal
        self._calls = _table(gui)
        self._constants: Mapping[str, object] = {
            **{"LEFT": gui.LEFT, "MIDDLE": gui.MIDDLE, "RIGHT": gui.RIGHT},
            **{"PRIMARY": gui.PRIMARY, "SECONDARY": gui.SECONDARY, "linear": gui.linear},
            **{"easeInQuad": gui.easeInQuad, "easeOutQuad": gui.easeOutQuad},
            **{"easeInOutQuad": gui.easeInOutQuad},
        }
        self._modules: dict[str, str] = {}  # name in the program -> module
        self._functions: dict[str, str] = {}  # name in the program -> function
        self._values: dict[str, object] = {}
        self._steps = 0
        self._looked = 0

    def play(self, body: Sequence[ast.stmt], depth: int = 0) -> None:
        for statement in body:
            self._step(statement)
            if depth > _MAX_DEPTH:
                _refuse(statement, "so deep a nesting")
            self._statement(statement, depth)

    def _step(self, node: ast.stmt | ast.expr) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            _refuse(node, f"more than {MAX_STEPS} steps")

    def _statement(self, statement: ast.stmt, depth: int) -> None:
        match statement:
            case ast.Import(names=names):
                for name in names:
                    self._import(statement, name)
            case ast.ImportFrom(module="time" | "pyautogui" as module, names=names, level=0):
                for name in names:
                    if name.name not in (["sleep"] if module == "time" else self._calls):
                        _refuse(statement, f"'from {module} import {name.name}'")
                    self._bind(statement, name.asname or name.name, function=name.name)
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call() as call):
                self._call(call, depth)
            case ast.Assign(targets=[target], value=value):
                self._assign(target, self._value(value, depth))
            case ast.For(target=ast.Name(id=name), iter=rounds, body=body, orelse=[]):
                count = self._rounds(rounds, depth)
                # A rehearsal sees also what would not be reached.
                for number in range(max(count, 1) if self._is_rehearsal else count):
                    self._bind(statement, name, value=number)
                    self.play(body, depth + 1)
            case ast.With(
                items=[ast.withitem(context_expr=ast.Call() as call, optional_vars=None)], body=body
            ) if self._called(call) == "hold":
                held = self._call(call, depth)
                with held if isinstance(held, AbstractContextManager) else nullcontext():
                    self.play(body, depth + 1)
            case _:
                _refuse(statement)

    def _import(self, statement: ast.stmt, name: ast.alias) -> None:
        if name.name not in ("pyautogui", "time"):
            _refuse(statement, f"'import {name.name[:40]}'")
        self._bind(statement, name.asname or name.name, module=name.name)

    def _bind(
        self, node: ast.stmt | ast.expr, name: str, *, module: str = "", function: str = "",
        value: object = None,
    ) -> None:  # fmt: skip
        """Give a name its one meaning: that of a module or function is not given away."""
        kind = self._modules if module else self._functions if function else self._values
        for others in (self._modules, self._functions, self._values):
            if others is not kind and name in others:
                _refuse(node, f"another meaning of {name!r}")
        if module:
            self._modules[name] = module
        elif function:
            self._functions[name] = function
        else:
            self._values[name] = value

    def _assign(self, target: ast.expr, value: object) -> None:
        match target:
            case ast.Name(id=name):
                self._bind(target, name, value=value)
            case ast.Tuple(elts=names) | ast.List(elts=names):
                if not isinstance(value, Sequence) or len(value) != len(names):
                    _refuse(target, "a value of another number of parts")
                for part, told in zip(names, value, strict=True):
                    if not isinstance(part, ast.Name):
                        _refuse(target)
                    self._bind(target, part.id, value=told)
            case ast.Attribute(value=ast.Name(id=module), attr="PAUSE") if self._is_gui(module):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    _refuse(target, "a PAUSE that is no plain number")
                if not 0 <= value <= MAX_SECONDS:
                    _refuse(target, f"a PAUSE beyond {MAX_SECONDS:g} seconds")
                self._gui.PAUSE = 0.0 if self._is_rehearsal else float(value)
            case ast.Attribute(value=ast.Name(id=module), attr="FAILSAFE") if self._is_gui(module):
                self._gui.FAILSAFE = bool(value)
            case _:
                _refuse(target)

    def _is_gui(self, name: str) -> bool:
        return self._modules.get(name) == "pyautogui"

    def _rounds(self, rounds: ast.expr, depth: int) -> int:
        match rounds:
            case ast.Call(func=ast.Name(id="range"), args=[number], keywords=[]):
                count = self._value(number, depth)
                if type(count) is int and 0 <= count <= MAX_ROUNDS:
                    return count
                _refuse(rounds, f"a loop that is not range(n) with n from 0 to {MAX_ROUNDS}")
        _refuse(rounds, "a loop over anything but range(n)")

    # Calls.

    def _called(self, call: ast.Call) -> str:
        match call.func:
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                known = self._modules.get(module)
                if known == "time" and name == "sleep":
                    return name
                if known == "pyautogui" and name in self._calls:
                    return name
                _refuse(call, f"a call of {module[:40]}.{name[:40]}")
            case ast.Name(id=name):
                if name in self._functions:
                    return self._functions[name]
                _refuse(call, f"a call of {name[:40]}")
        _refuse(call, "a call of anything but a function of pyautogui or time.sleep")

    def _call(self, call: ast.Call, depth: int) -> object:
        name = self._called(call)
        function = self._calls[name]
        positional = [self._value(argument, depth + 1) for argument in call.args]
        named: dict[str, object] = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                _refuse(call, "**arguments")
            named[keyword.arg] = self._value(keyword.value, depth + 1)
        try:
            bound = inspect.signature(function).bind(*positional, **named)
        except TypeError as error:
            raise InvalidRequest(f"Line {call.lineno}: {name}(): {error}.") from error
        self._check(call, name, bound.arguments)
        if self._is_rehearsal:
            return _TOLD.get(name)
        return function(*positional, **named)

    def _check(self, call: ast.Call, name: str, arguments: Mapping[str, object]) -> None:
        if any(isinstance(arguments.get(point), str) for point in ("x", "xOffset")):
            _refuse(call, "a picture's file as a point")
        if not callable(arguments.get("tween", abs)):  # only the tweens of the table can be called
            _refuse(call, "a tween of its own")
        slept = arguments.get("seconds") if name == "sleep" else 0
        if isinstance(slept, _Unknown):
            return
        if isinstance(slept, bool) or not isinstance(slept, int | float):
            _refuse(call, "a sleep of no number of seconds")
        if not 0 <= slept <= MAX_SECONDS:
            _refuse(call, f"a sleep beyond {MAX_SECONDS:g} seconds")

    # Values.

    def _value(self, node: ast.expr, depth: int) -> object:
        self._looked += 1
        if depth > _MAX_DEPTH or self._looked > _MAX_VALUES:
            _refuse(node, "so deep a nesting" if depth > _MAX_DEPTH else "so much to work out")
        match node:
            case ast.Constant(value=None | bool() | str() as value):
                return value
            case ast.Constant(value=int() | float() as value):
                return _number(node, value)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return tuple(self._part(part, depth + 1) for part in parts)
            case ast.Dict(keys=keys, values=values) if None not in keys:
                names = [self._part(key, depth + 1) for key in keys if key is not None]
                if not all(isinstance(name, str) for name in names):
                    _refuse(node, "a dictionary whose keys are not text")
                told = [self._part(value, depth + 1) for value in values]
                return dict(zip(names, told, strict=True))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = _as_number(node, self._value(operand, depth + 1))
                if isinstance(number, _Unknown) or isinstance(sign, ast.UAdd):
                    return number
                return -number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                first = _as_number(node, self._value(left, depth + 1))
                second = _as_number(node, self._value(right, depth + 1))
                if isinstance(first, _Unknown) or isinstance(second, _Unknown):
                    return _UNKNOWN
                try:
                    return _number(node, _OPERATORS[type(op)](first, second))
                except ZeroDivisionError:
                    _refuse(node, "a division by zero")
            case ast.Name(id=name) if name in self._values:
                return self._values[name]
            case ast.Name(id=name):
                _refuse(node, f"the name {name[:40]!r}, which has no value here")
            case ast.Attribute(value=ast.Name(id=module), attr=name) if self._is_gui(module):
                if name in self._constants:
                    return self._constants[name]
                _refuse(node, f"pyautogui.{name[:40]}")
            case ast.Call():
                self._step(node)
                return self._call(node, depth)
        _refuse(node)

    def _part(self, node: ast.expr, depth: int) -> object:
        """A part of a list: what a name stands for may not be a list, or lists could grow."""
        value = self._value(node, depth)
        if isinstance(value, tuple | dict) and not isinstance(node, ast.List | ast.Tuple):
            _refuse(node, "a list inside a list by its name")
        return value


def _as_number(node: ast.expr, value: object) -> int | float | _Unknown:
    if isinstance(value, bool) or not isinstance(value, int | float | _Unknown):
        _refuse(node, "arithmetic of anything but numbers")
    return value


def _number(node: ast.expr, value: int | float) -> int | float:
    if not abs(value) <= MAX_NUMBER:
        _refuse(node, f"a number beyond {MAX_NUMBER}")
    return value


def _refuse(node: ast.stmt | ast.expr, what: str = "") -> NoReturn:
    raise InvalidRequest(
        f"Line {node.lineno}: {what or _CONSTRUCTS.get(type(node), type(node).__name__)}"
        " is not taken here.",
        hint="Only pyautogui's calls with plain arguments, time.sleep, names for numbers and text, "
        "'for _ in range(n)' and 'with pyautogui.hold(...)' are.",
    )
