"""The names that peft gives the parameters of adapters. It imports no library, so settings can be checked first."""

BASE, ADAPTER = ".base_layer.", ".lora_"


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ADAPTER in name


def is_base(name: str) -> bool:
    """Whether a parameter of this name belongs to a layer under an adapter."""
    return BASE in name


def plain_name(name: str) -> str:
    """Returns a parameter's name in the model without adapters."""
    return name.replace(BASE, ".")
