"""What connections are drawn with: choices, tensors and layers so far."""

import ast
import collections
import contextlib
import dataclasses

from tests.fuzz.connections.registry import FAMILIES, choices
from tests.fuzz.program import CALL, INPUT, LAYER, OTHER, Program, RefusedError

ACTIVATIONS = (
    '"tanh"',
    '"relu"',
    '"sigmoid"',
    '"linear"',
    '"softsign"',
    '"hard_sigmoid"',
    '"gelu"',
    '"softplus"',
    "doubled",
    "shifted",
    "scaled_by(0.5)",
    "Scaling(1.5)",
    "Scaling(0.5).method",
    "lambda x: ops.tanh(2.0 * x)",
)

STEPS = 4


@dataclasses.dataclass
class Scope:
    """What can be connected: the tensors and layers of one model.

    Attributes:
        tensors: List of names, the latest last.
        called: Dict from the name of a layer to that of a tensor it read.
        inputs: List of the names of the inputs.
    """

    tensors: list = dataclasses.field(default_factory=list)
    called: dict = dataclasses.field(default_factory=dict)
    inputs: list = dataclasses.field(default_factory=list)

    def copy(self):
        return Scope(list(self.tensors), dict(self.called), list(self.inputs))


class Drawing:
    """Draws a program.

    A connection adds statements by `layer`, `call` and `apply`. Whatever it
    needs and does not find raises `RefusedError`, as does what Keras refuses;
    then nothing of it stays.

    Args:
        random: `random.Random`.
        batch: Integer, the fixed number of samples, or `None` for any.
        for_export: Boolean, whether the graph is to be exported.
        for_stream: Boolean, whether it is to run step by step.
        for_fused: Boolean, whether its recurrent layers are plain LSTMs.

    Attributes:
        program: `Program`, what has been drawn.
        tags: `collections.Counter` of the kinds of connection.
        refused: `collections.Counter` of connections that were not drawn.
        is_random: Boolean, whether the graph draws numbers in training.
    """

    def __init__(
        self,
        random,
        batch=None,
        for_export=False,
        for_stream=False,
        for_fused=False,
    ):
        self.random = random
        self.batch = batch
        self.steps = STEPS
        self.for_export = for_export
        self.for_stream = for_stream
        self.for_fused = for_fused
        self.program = Program()
        self.tags = collections.Counter()
        self.refused = collections.Counter()
        self.is_random = False
        self.scopes = [Scope()]
        self._count = 0
        # Some graphs have much of one family, others nothing of it.
        self._families = {
            family: self.choice((0, 1, 1, 2, 4)) for family in sorted(FAMILIES)
        }
        self._families["recurrent"] = self.choice((2, 4))

    # Choices.

    def choice(self, choices):
        """One of a sequence, or of the keys of a dict of weights."""
        if not choices:
            raise RefusedError("nothing to choose from")
        if isinstance(choices, dict):
            (chosen,) = self.random.choices(
                list(choices), list(choices.values())
            )
            return chosen
        return self.random.choice(list(choices))

    def chance(self, probability):
        """Whether something happens."""
        return self.random.random() < probability

    def integer(self, low, high):
        """An integer between two, both included."""
        return self.random.randint(low, high)

    def size(self):
        """A number of units."""
        return self.integer(2, 4)

    def activation(self):
        """The text of an activation."""
        return self.choice(ACTIVATIONS)

    # Tensors.

    @property
    def scope(self):
        return self.scopes[-1]

    @property
    def depth(self):
        """In how many models the next statement stands."""
        return len(self.scopes)

    def value(self, name):
        """The symbolic tensor of a name."""
        return self.program.namespace[name]

    def shape(self, name):
        """Its shape, a tuple."""
        return tuple(self.value(name).shape)

    def width(self, name):
        """Its last size."""
        return self.shape(name)[-1]

    def tensors(self, rank=None, where=None, dtype="float"):
        """The names of the tensors of a kind, the latest last.

        Args:
            rank: Integer, or `None` for any.
            where: Optional function from a shape to a boolean.
            dtype: What the name of the dtype begins with.
        """
        return [
            name
            for name in self.scope.tensors
            if self.value(name).dtype.startswith(dtype)
            and rank in (None, len(self.shape(name)))
            and (where is None or where(self.shape(name)))
        ]

    def tensor(self, rank=None, where=None, dtype="float"):
        """One of those tensors, a late one rather than an early one."""
        found = self.tensors(rank, where, dtype)
        if not found:
            raise RefusedError("no such tensor")
        back = min(self.random.randrange(len(found)) for _ in range(2))
        return found[-1 - back]

    def sequence(self):
        """A tensor `(batch, time, units)`."""
        return self.tensor(3)

    def vector(self):
        """A tensor `(batch, units)`."""
        return self.tensor(2)

    def tokens(self):
        """An input `(batch, time)` of integers."""
        found = self.tensors(2, None, "int32")
        return self.choice([x for x in found if x in self.scope.inputs])

    def like(self, name):
        """A tensor of the same shape, the same one maybe."""
        shape = self.shape(name)
        return self.choice(self.tensors(where=lambda other: other == shape))

    def mask(self, name):
        """The text of a mask for a sequence: a tensor of booleans."""
        shape = self.shape(name)[:2]
        known = self.tensors(2, lambda other: other == shape, "bool")
        tokens = self.tensors(2, lambda other: other == shape, "int32")
        choices = [*known]
        choices += [f"ops.not_equal({ids}, 0)" for ids in tokens]
        choices += [f"{ids} > 2" for ids in tokens]
        sequences = self.tensors(3, lambda other: other[:2] == shape)
        choices += [
            f"ops.any({sequence} > 0.0, axis=-1)" for sequence in sequences[:1]
        ]
        return self.choice(choices)

    # Statements.

    def name(self, prefix):
        """A new name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def tag(self, *tags):
        """Counts kinds of connection."""
        self.tags.update(tags)

    def define(self, text):
        """Adds a statement that is neither layer nor call."""
        self.program.run(text, OTHER, depth=self.depth)

    def input(self, *shape, dtype="float32"):
        """Adds an input of the model; its shape is without the batch."""
        name = self.name("x")
        given = repr((*shape,))
        if self.batch:
            given = f"batch_shape={(self.batch, *shape)}"
        if dtype != "float32":
            given += f', dtype="{dtype}"'
        text = f'{name} = keras.Input({given}, name="{name}")'
        self.program.run(text, INPUT, [name], self.depth)
        self.scope.tensors.append(name)
        self.scope.inputs.append(name)
        return name

    def layer(self, text, prefix=None, named=True):
        """Adds a layer.

        Args:
            text: String, the call of its constructor, without a name.
            prefix: String, what its name begins with. Defaults to that of
                its class.
            named: Boolean, whether its constructor takes a name.

        Returns:
            Its name.
        """
        if prefix is None:
            prefix = text.partition("(")[0].rpartition(".")[2].lower()
        name = self.name(prefix)
        if named:
            comma = "" if text.endswith("()") else ", "
            text = f'{text[:-1]}{comma}name="{name}")'
        self.program.run(f"{name} = {text}", LAYER, [name], self.depth)
        return name

    def call(self, expression):
        """Adds tensors.

        Returns:
            List of their names.
        """
        if expression.isidentifier():
            raise RefusedError("is there already")
        names = self.program.call(
            expression, lambda: self.name("h"), self.depth
        )
        self.scope.tensors += names
        return names

    def apply(self, text, *arguments, prefix=None):
        """Adds a layer and calls it.

        Args:
            text: As in `layer`.
            *arguments: Strings, the arguments of the call. The first one is
                remembered for calling the layer again.
            prefix: As in `layer`.

        Returns:
            List of the names of what it gives.
        """
        layer = self.layer(text, prefix)
        names = self.call(f"{layer}({', '.join(arguments)})")
        if arguments[0].isidentifier():
            self.scope.called[layer] = arguments[0]
        return names

    # Growing.

    def grow(self, tries=8):
        """Adds a connection, of whatever kind.

        Returns:
            Boolean, whether there is one more.
        """
        families = {
            family: weight
            for family, weight in self._families.items()
            if self._choices(family)
        }
        for _ in range(tries):
            family = self.choice(families)
            draw = self.choice(self._choices(family))
            _, error = self.attempt(draw, self)
            if error is None:
                return True
            self.refused[f"{family}.{draw.__name__}: {error}"] += 1
        return False

    def _choices(self, family):
        if self.for_fused and family == "masks":
            return {}
        return choices(family, self.for_export, self.for_stream)

    @contextlib.contextmanager
    def inner_scope(self):
        """A model inside: nothing from outside is connected."""
        self.scopes.append(Scope())
        try:
            yield self.scope
        finally:
            self.scopes.pop()

    def attempt(self, function, *arguments):
        """Runs a function that draws; if it is refused, nothing stays.

        Returns:
            Pair of what it gives and of `None` or the `RefusedError`.
        """
        statements = len(self.program.statements)
        before = [scope.copy() for scope in self.scopes]
        tags, is_random = self.tags.copy(), self.is_random
        try:
            return function(*arguments), None
        except RefusedError as error:
            del self.program.statements[statements:]
            self.scopes[:] = before
            self.tags, self.is_random = tags, is_random
            return None, error

    def unread(self, start=0):
        """The tensors of the scope that no statement reads.

        Args:
            start: Integer, the first statement to look at.
        """
        read = set()
        for statement in self.program.statements[start:]:
            if statement.kind == CALL:
                read |= names_in(statement.text.partition(" = ")[2])
            elif statement.kind == OTHER:
                read |= names_in(statement.text)
        return [name for name in self.scope.tensors if name not in read]


def names_in(text):
    """The names that occur in the text of some statements."""
    return {
        node.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Name)
    }
