"""Names of timm's architectures in `model.arch`. A module of its own, because it loads without torch and timm."""

from importlib.metadata import PackageNotFoundError, version

PREFIX = "timm/"


def is_timm(arch: str) -> bool:
    """Whether `model.arch` names an architecture of timm: `timm/convnext_tiny.in12k_ft_in1k`."""
    return arch.startswith(PREFIX)


def timm_version(arch: str) -> str:
    """The version of timm that is installed. Raises ValueError, for `arch`, if none is."""
    try:
        return version("timm")
    except PackageNotFoundError:
        raise ValueError(
            f"model.arch={arch} needs timm, which is not installed: `pip install 'unfreeze[timm]'`, or in a checkout "
            "`pip install -c constraints.txt -e '.[timm]'`"
        ) from None
