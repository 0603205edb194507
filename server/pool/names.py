"""Names: which models somebody may mean who does not give an id."""

from collections.abc import Iterable

from server.filenames import family_of, quant_in
from server.pool.scan import Found

REPO_ENDING = "-gguf"
"""Most repositories of GGUF files end so; nobody needs to write it."""


class Names:
    """Of each model (its id, where it was found, its header's quant) what it is called.

    Case does not matter. A model is called by its id, by its file's name, with and without the
    quant, and by its repository; each with or without the owner or other folders before it.
    """

    def __init__(self, models: Iterable[tuple[str, Found, str]]):
        self._files: dict[str, list[str]] = {}
        self._families: dict[str, list[str]] = {}
        self._quants: dict[str, tuple[str, str]] = {}
        for id, found, quant in models:
            places = [folder.lower() for folder in found.repo]
            stem = found.stem.lower()
            self._note(self._files, {id.lower(), *_endings([*places, stem])}, id)
            families = {*_endings(places), *_endings([*places, family_of(stem)])}
            self._note(self._families, families | {_bare(name) for name in families}, id)
            self._quants[id] = (quant_in(found.stem), quant.upper())

    @staticmethod
    def _note(names: dict[str, list[str]], keys: Iterable[str], id: str) -> None:
        for key in keys:
            names.setdefault(key, []).append(id)

    def meant(self, name: str) -> list[str]:
        """The ids of those that `name`, or `repo:quant`, may mean."""
        wanted = name.lower().removesuffix(".gguf")
        if ids := self._files.get(wanted):
            return ids
        repo, colon, quant = wanted.rpartition(":")
        if not colon:
            return self._families.get(_bare(wanted), [])
        ids, quant = self._families.get(_bare(repo), []), quant.upper()
        # A name says more than a header: UD-Q4_K_XL is Q4_K_M there.
        by_name = [id for id in ids if self._quants[id][0] == quant]
        return by_name or [id for id in ids if self._quants[id][1] == quant]


def _bare(name: str) -> str:
    return name.removesuffix(REPO_ENDING)


def _endings(places: list[str]) -> set[str]:
    """a/b/c, b/c and c."""
    return {"/".join(places[start:]) for start in range(len(places))}
