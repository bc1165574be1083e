"""Registration of operators with torch: schema, kernel, results without values, derivative.

`torch.library.custom_op` does the same, but the first call of such an operator imports torch's compiler and sympy: more
than a second in each process, also where nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

Operator = Callable[..., Any]
_LIBRARY = torch.library.Library("labeldrop", "FRAGMENT")


def register(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Operator:
    """`labeldrop::<name>` on every device: the kernel says itself where it runs. vmap is refused.

    Args:
        name: of the operator.
        schema: `(arguments) -> results` in torch's notation.
        kernel: reads and writes memory by its address.
        fake: the results' shapes, types and layouts, for compilation.
        setup_context: saves what the derivative needs, as in `torch.autograd.Function`.
        backward: the derivative; None where no result has one.
    """
    qualified = f"labeldrop::{name}"
    torch.library.define(qualified, schema, lib=_LIBRARY, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=_LIBRARY)

    def refuse_vmap(*_: Any) -> NoReturn:  # noqa: ANN401 - torch's
        raise RuntimeError(f"{name}: vmap is not implemented; make the mapped dimension part of N")

    torch.library.register_vmap(qualified, refuse_vmap, lib=_LIBRARY)
    operator: Operator = getattr(torch.ops.labeldrop, name).default
    return operator


def register_backward(name: str, schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Operator:
    """`labeldrop::<name>_backward`, the derivative of an operator; it has none itself."""

    def refuse(*_: Any) -> NoReturn:  # noqa: ANN401 - torch's
        raise RuntimeError(f"{name}: second derivatives are not implemented; use backend='reference' for them")

    return register(f"{name}_backward", schema, kernel, fake, backward=refuse)
