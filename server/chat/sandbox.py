"""The sandbox of chat templates, which come with models or from clients and are not trusted.

jinja2's immutable sandbox keeps them from attributes that lead outside and from changing what they
are given. This one also keeps account of what they use up, in `server.chat.budget`: the code that
jinja2 generates is made to tick in every block, and each operation that can make something large is
led by way of the budget. Nothing is computed while a template compiles.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from server.chat.budget import current
from server.chat.guards import (
    check_format,
    check_method,
    check_number,
    check_product,
    guarded_filter,
    guarded_join,
    sum_numbers,
    ticking,
    to_json,
)

NO_FILTERS = ("urlize", "pprint", "wordwrap", "striptags", "xmlattr")
"""Filters for web pages, whose time grows faster than their input."""

COMPARING = ("in", "==", "eq", "equalto", "!=", "ne", "<", "lt", "lessthan", "<=", "le", ">", "gt",
             "greaterthan", ">=", "ge")  # fmt: skip


def concat(parts: Iterable[str]) -> str:
    """The parts of what is put out as one text."""
    return current().concat(parts)


class _Generator(CodeGenerator):
    """Writes code that accounts for itself."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("environment.tick()")
        super().blockvisit(nodes, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(environment.tick() or ")
        super().visit_Compare(node, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self.write("environment.checked(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("environment.checked(")
        super().visit_Dict(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        loaded = node.ctx == "load"
        self.write("environment.checked(" if loaded else "")
        super().visit_Tuple(node, frame)
        self.write(")" if loaded else "")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        sliced = isinstance(node.arg, nodes.Slice)
        self.write("environment.checked(" if sliced else "")
        super().visit_Getitem(node, frame)
        self.write(")" if sliced else "")

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        del node, frame, finalize
        self.write("environment.written(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        del node, frame, finalize
        self.write(")")


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`, which matters for training: the body, in place."""

    tags = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Does not write out what it holds, which may hold itself many times over."""

    def __repr__(self) -> str:
        return "<Namespace>"


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all chat templates: jinja2 as transformers sets it up, with limits."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    # Not jinja2's joining of strings, which knows no end.
    concat = staticmethod(concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        self.globals["namespace"] = _Namespace
        del self.globals["lipsum"]
        for name in NO_FILTERS:
            del self.filters[name]
        filters = cast("dict[str, Callable[..., Any]]", self.filters)
        filters.update(tojson=to_json, sum=sum_numbers, join=guarded_join(filters["join"]))
        self.filters = {name: guarded_filter(name, filter) for name, filter in filters.items()}
        for name in COMPARING:
            self.tests[name] = ticking(self.tests[name])

    def tick(self) -> None:
        """Raises SecurityError if the time is up."""
        current().tick()

    def checked(self, value: Any) -> Any:
        """The value, accounted for."""
        return current().check(value)

    def joined(self, values: Iterable[object]) -> str:
        """What `~` makes of its operands."""
        return current().concat(map(self.written, values))

    def written(self, value: object) -> str:
        """The value as it is put out."""
        if type(value) is str:
            return value
        text = str(value)
        current().spend(len(text))
        return text

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Raises SecurityError where the result would be too large."""
        del context
        match operator:
            case "*":
                check_product(left, right)
            case "**" if isinstance(left, int) and isinstance(right, int):
                check_number(right)
                check_number(left.bit_length() * abs(right))
            case "%" if isinstance(left, str):
                check_format(left)
            case "+" if isinstance(left, str) and isinstance(right, str):
                current().fits(len(left) + len(right))
            case _:
                pass
        result: object = self.binop_table[operator](left, right)
        if operator == "+" and isinstance(left, list):
            return current().both(cast("object", left), right, result)
        return current().check(result)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """As jinja2's, for format strings of ordinary widths."""
        found = super().wrap_str_format(value)
        if found is not None:
            check_format(value.__self__)
        return found

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or a function. Raises SecurityError."""
        budget = current()
        owner = getattr(__obj, "__self__", None)
        if owner is not None:
            args = check_method(owner, getattr(__obj, "__name__", ""), args)
        elif isinstance(__obj, Macro):
            budget.fits(budget.weigh((*args, *kwargs.values())))
        return budget.check(super().call(__context, __obj, *args, **kwargs))
