"""Prompts of random common words, fresh for every request, whose lengths in tokens are known.

Every word of the list is one token of the benchmark's model when a space precedes it, so that a
prompt of n words is n tokens long, give or take the first word.
"""

import random

_TEXT = """
able above action address again agree allow along also always animal anyone apple argue
around art ask author baby bad bank base beach beat become before begin believe best between
bird black blue boat book born bottom boy break bridge bring brother build bus busy call
capital car care case cat cause century chance chapter check child choose circle claim clean
clock cloud coat cold college come company condition contain cook copy correct cotton
council country course cover crop crowd culture current dance dark daughter dead dear decide
degree describe design develop dinner discover dog door down dream drink drop duck dust each
early east eat effect eight electric empty enemy enjoy enter escape event exact expect face
fair family far fast favor feed feet fight fill final fine finish first five floor flower
follow foot foreign forget forward four fresh front full future garden gate gentle girl glad
gold govern grass great ground grow guess gun half hand happy hat heart heavy help high
history hole honor horse hot hour huge hundred hurry idea imagine increase industry island
join just keep kind kitchen know lake language last laugh lay leaf leave leg less letter lie
lift limit lion listen local look loud low lunch main make many march market match mean meat
member metal middle mile million minute miss modern money moon mother mountain move name
nature neck neighbor new nine north note notice object offer often old open order out over
page pair parent part pass path pay people period phone phrase piece plain plane play point
popular position post power prepare press price prison problem produce proper proud public
pure question quiet race rain range reach ready reason record region remember reply rest
rich right rise road roll root row run sail same save scale science search seat secret seed
sell sense serve seven shade share ship shoe shore should shout side sign silver simple sing
sister size sky slip small smile smooth soft soldier some song sort south speak speech spell
spirit spread square stand start station steal steel stick stone store story strange street
stretch strong study success sugar summer supply sure surprise swim table take tall teach
tear ten thank thin think thought three throw time today tomorrow tool total toward trade
travel trip truck trust turn twenty uncle unit upon valley various view visit wait wall war
wash water way weather weight wheel white wide wild win window wire wish wonder word world
write year young
"""
WORDS = tuple(_TEXT.split())


class PromptSource:
    """One round's prompts: the same for every server of the round, none given twice."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._heads = list(WORDS)
        self._random.shuffle(self._heads)
        self._n_given = 0

    def distinct(self, n_words: int) -> str:
        """A prompt without a common prefix: its first two words are its serial number."""
        n_given, self._n_given = self._n_given, self._n_given + 1
        second, first = divmod(n_given, len(self._heads))
        head = [self._heads[first], self._heads[second]]
        return " ".join([*head, *self._random.choices(WORDS, k=n_words - len(head))])

    def of(self, n_prompts: int, n_shared: int, n_own: int) -> list[str]:
        """Prompts that begin with the same words, if any, and then go their own ways at once."""
        prefix = f"{self.distinct(n_shared)} " if n_shared else ""
        return [prefix + self.distinct(n_own) for _ in range(n_prompts)]
