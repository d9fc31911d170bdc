"""Checkpoints from the Hugging Face Hub, through its own library and into its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import urls
from ..files.errors import Problem

_WHOLE, _INDEX, _PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
_CONFIG = "config.json"


class HubProblem(Problem):
    """A repository cannot be had from the Hugging Face Hub."""

    code = "download"


def fetch_huggingface(repo: str, offline: bool = False) -> Path:
    """The folder of a repository's weights and config.json, downloaded if it is not in the Hub's cache yet.

    repo: "owner/name", or "owner/name@revision". A copy in the cache is used without asking whether there is a newer one.
    offline: as POLYMAE_OFFLINE and HF_HUB_OFFLINE, use no network. Raises HubProblem.
    """
    name, _, revision = repo.partition("@")
    try:
        from huggingface_hub import constants, errors
    except ModuleNotFoundError as missing:
        if missing.name != "huggingface_hub":
            raise
        raise HubProblem(
            f"{repo} is on the Hugging Face Hub, and its library is not installed: pip install huggingface_hub"
        ) from None
    hub = urls.scrubbed(constants.ENDPOINT)  # it may hold a login
    try:
        folder = _kept(name, revision or None)
        if folder is not None:
            return folder
        if offline or urls.offline() or constants.is_offline_mode():
            raise HubProblem(
                f"{repo} is not in the Hugging Face cache ({constants.HF_HUB_CACHE}) and nothing may be fetched. Unset "
                "POLYMAE_OFFLINE and HF_HUB_OFFLINE, or give the path of a folder with its files."
            )
        return _download(name, revision or None)
    except errors.HFValidationError as problem:
        raise HubProblem(f"{repo!r} is no name on the Hugging Face Hub, which are owner/name: {problem}") from None
    except errors.GatedRepoError:
        raise HubProblem(
            f"{repo} is only for those who accepted its conditions: do so at {hub}/{name}, then `hf auth login`."
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubProblem(
            f"There is no {repo} at {hub}, or it is private: check the name, or `hf auth login`."
        ) from None
    except errors.RevisionNotFoundError:
        raise HubProblem(
            f"{name} has no revision {revision!r}; give a branch, a tag or a commit after the @."
        ) from None
    except Problem:
        raise
    except Exception as problem:  # the errors of its transport differ from version to version of the library
        if not _of_transport(problem):
            raise
        first = urls.scrubbed(next(iter(str(problem).splitlines()), "")).rstrip(".")
        raise HubProblem(
            f"Could not fetch {repo} from {hub}: {type(problem).__name__}: {first}. Check the network, the "
            "proxy (HTTPS_PROXY), the room on the disk and HF_ENDPOINT; what has come is kept."
        ) from None


def _kept(name: str, revision: str | None) -> Path | None:
    """A snapshot in the Hub's cache that has all its weights."""
    from huggingface_hub import errors, snapshot_download

    from ..convert.checkpoint import open_checkpoint

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[_CONFIG]))
        open_checkpoint(folder)
    except (errors.LocalEntryNotFoundError, Problem):  # nothing, or only a part of it
        return None
    return folder


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    # Not list_repo_files, which without a network tries again for 23 seconds.
    files = [file.rfilename for file in HfApi().model_info(name, revision=revision).siblings or ()]
    chosen = _chosen(files)
    if not chosen:
        raise HubProblem(
            f"{name} holds no weights that are read here ({_WHOLE}, {_INDEX} or {_PICKLED}); it has {', '.join(files[:20])}."
        )
    return Path(snapshot_download(name, revision=revision, allow_patterns=chosen))


def _chosen(files: Sequence[str]) -> list[str]:
    """Of a repository's files, those of one set of weights: safetensors, and pickled ones only if there are none."""
    chosen = [name for name in (_INDEX, _WHOLE) if name in files][-1:]
    if chosen == [_INDEX]:
        chosen += [name for name in files if name.startswith("model-") and name.endswith(".safetensors")]
    chosen = chosen or [name for name in (_PICKLED,) if name in files]
    return [*chosen, *(name for name in (_CONFIG,) if chosen and name in files)]


def _of_transport(problem: BaseException) -> bool:
    """Whether an error is of the network, the server or the disk, and not of a program."""
    kinds: tuple[Any, ...] = (OSError, EOFError)
    return isinstance(problem, kinds) or type(problem).__module__.partition(".")[0] in ("httpx", "httpx2", "requests")
