"""Scripts: what the machine is told to do with an array of some shape."""

from __future__ import annotations

from collections.abc import Collection

from tests.interop.shapes import Shape


def create(shape: Shape, options: str = "") -> str:
    """``mdadm --create`` of *shape* over the first of the disks; *options* come before them."""
    if not shape.legs:
        disks = " ".join(f"$d{slot}" for slot in range(len(shape.sizes)))
        return f"mdadm --create $md --run --metadata 1.2 --name k${{md#/dev/md}} {shape.mdadm()} {options} {disks}\n"
    lines = [_legs(shape)]
    for leg in range(shape.legs):
        lines.append(f"mdadm --create $leg{leg} --run --metadata 1.2 --name leg{leg} {shape.mdadm()} $disks{leg}")
    lines.append(
        f"mdadm --create $md --run --metadata 1.2 --name over --level raid0 --chunk {shape.chunk}"
        f" --raid-devices {shape.legs} {_names(shape)}\n"
    )
    return "\n".join(lines)


def assemble(shape: Shape, without: Collection[int] = ()) -> str:
    """``mdadm --assemble`` from all disks; *without* some, if it is not nested."""
    if not shape.legs:
        disks = (
            " ".join(f"$d{slot}" for slot in range(len(shape.sizes)) if slot not in without) if without else "$disks"
        )
        return f"mdadm --assemble --run $md {disks}\nstarted\n"
    lines = [_legs(shape)]
    lines += [f"mdadm --assemble --run $leg{leg} $disks{leg}" for leg in range(shape.legs)]
    return "\n".join([*lines, f"mdadm --assemble --run $md {_names(shape)}", "started\n"])


def _legs(shape: Shape) -> str:
    """Names for the arrays of which *shape* is the RAID 0."""
    width = len(shape.sizes)
    lines = ["first=$numbers", "numbers="]
    for leg in range(shape.legs):
        disks = " ".join(f"$d{leg * width + slot}" for slot in range(width))
        lines.append(f'leg{leg}=/dev/md$((first + {leg + 1})); numbers="$numbers $((first + {leg + 1}))"')
        lines.append(f'disks{leg}="{disks}"')
    return "\n".join(lines)


def _names(shape: Shape) -> str:
    return " ".join(f"$leg{leg}" for leg in range(shape.legs))
