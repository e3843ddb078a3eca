"""Chooses between packages that overwrite each other, and turns a choice into requirements (pure).

The rule, in this order: what the user named (`--variant`), or an earlier lock chose; for a known family its best member
for a server; the only one that brings all the compiled code of the others. Else nobody can know, and the user is asked.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from comfypin.lock.model import VariantChoice
from comfypin.lock.overlaps import Overlap, WheelContents, is_superset
from comfypin.lock.requirements import RequirementLine, RequirementSet, normalize_package_name

# Builds of one project, the best for a server first: it has everything that the others have, and needs no display.
# https://github.com/opencv/opencv-python#installation-and-usage
FAMILIES = (
    ("opencv-contrib-python-headless", "opencv-contrib-python", "opencv-python-headless", "opencv-python"),
    ("onnxruntime-gpu", "onnxruntime"),
)
# No Python has this version, so uv leaves out whatever is asked for only there.
NOWHERE = "python_version < '0'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenVariants:
    """The choices that were made, and the overlaps for which nobody could make one."""

    choices: tuple[VariantChoice, ...] = ()
    open_overlaps: tuple[Overlap, ...] = ()


def choose_variants(
    overlaps: Iterable[Overlap], contents: Iterable[WheelContents], wanted_names: Collection[str], platform: str
) -> ChosenVariants:
    """Choose for each overlap on a platform; `wanted` are the normalized names that the user gave."""
    contents_by_name = {wheel.name: wheel for wheel in contents}
    choices: dict[str, VariantChoice] = {}
    open_overlaps: list[Overlap] = []
    for overlap in overlaps:
        winner = _choose_one(overlap, contents_by_name, wanted_names)
        if winner is None:
            open_overlaps.append(overlap)
            continue
        choice = _make_choice(winner, overlap, contents_by_name, platform)
        choices[winner] = _merge(choices[winner], choice) if winner in choices else choice
    return ChosenVariants(choices=tuple(choices.values()), open_overlaps=tuple(open_overlaps))


def choose_wanted_siblings(
    names: Collection[str], wanted_names: Collection[str], platform: str
) -> tuple[VariantChoice, ...]:
    """Return a choice for each wanted member of a known family of which other members were resolved.

    With `--variant opencv-python-headless` that one is installed wherever opencv-python is asked for.
    """
    return tuple(
        VariantChoice(name=package_name, replaces=tuple(others), platforms=(platform,))
        for package_name in sorted(wanted_names)
        for family in FAMILIES
        if package_name in family and (others := sorted(set(family) & set(names) - {package_name}))
    )


def merge_choices(earlier: Iterable[VariantChoice], later: Iterable[VariantChoice]) -> tuple[VariantChoice, ...]:
    """Return all choices, those of one name as one."""
    merged: dict[str, VariantChoice] = {}
    for choice in (*earlier, *later):
        merged[choice.name] = _merge(merged[choice.name], choice) if choice.name in merged else choice
    return tuple(merged[package_name] for package_name in sorted(merged))


def forget_overruled(choices: Iterable[VariantChoice], wanted_names: Collection[str]) -> tuple[VariantChoice, ...]:
    """Return the choices of an earlier lock without those that `--variant` decides anew."""
    return tuple(
        choice
        for choice in choices
        if not any(package_name != choice.name and package_name in _family_of(choice) for package_name in wanted_names)
    )


def apply_variants(
    needs: RequirementSet, overrides: Sequence[str], choices: Iterable[VariantChoice], platform: str
) -> tuple[RequirementSet, tuple[str, ...]]:
    """Return requirements and overrides with the chosen packages instead of those that they replace."""
    chosen_by_name = {
        package_name: choice.name
        for choice in choices
        if not choice.platforms or platform in choice.platforms
        for package_name in choice.replaces
    }
    if not chosen_by_name:
        return needs, tuple(overrides)
    replacements = tuple(
        _rename(requirement, chosen_by_name[requirement.name]) if requirement.name in chosen_by_name else requirement
        for requirement in needs.requirements
    )
    # Whoever asks may be a package, whose requirements nobody can rewrite: so it is asked for here.
    added = tuple(
        RequirementLine(text=package_name, name=package_name, origin="--variant")
        for package_name in sorted(set(chosen_by_name.values()))
    )
    renamed_overrides = [_rename_text(override_text, chosen_by_name) for override_text in overrides]
    left_out = [f"{package_name} ; {NOWHERE}" for package_name in sorted(chosen_by_name)]
    return replace(needs, requirements=(*replacements, *added)), (*renamed_overrides, *left_out)


def describe_choices(choices: Iterable[VariantChoice], needs: RequirementSet) -> list[str]:
    """Return a line about each choice: who asks for what, what is installed in its place."""
    return [_describe(choice, needs) for choice in choices]


def who_asks(package_name: str, needs: RequirementSet) -> str:
    """Return a package with who asks for it, in brackets."""
    origins = list(dict.fromkeys(need.origin for need in needs.requirements if need.name == package_name))
    return f"{package_name} ({', '.join(origins) if origins else 'another package asks for it'})"


def _describe(choice: VariantChoice, needs: RequirementSet) -> str:
    imports = f"{', '.join(choice.imports)}: " if choice.imports else ""
    if choice.replaces:
        asking_parts = ", ".join(who_asks(package_name, needs) for package_name in choice.replaces)
        return f"{imports}{choice.name} is locked in place of {asking_parts}; another one with --variant NAME"
    others = ", ".join(who_asks(package_name, needs) for package_name in choice.overwrites)
    return f"{imports}files of {choice.name} are kept where {others} brings others"


def _choose_one(overlap: Overlap, contents: Mapping[str, WheelContents], wanted_names: Collection[str]) -> str | None:
    family = next((family for family in FAMILIES if set(overlap.packages) <= set(family)), ())
    for package_name in sorted(wanted_names):
        if package_name in overlap.packages or package_name in family:
            return package_name
    if family:
        return family[0]
    return _find_superset(overlap, contents)


def _find_superset(overlap: Overlap, contents: Mapping[str, WheelContents]) -> str | None:
    wheels = [contents[package_name] for package_name in overlap.packages]
    # Only variants of one thing: a package that has a copy of another inside is not that other one.
    if len({wheel.import_names for wheel in wheels}) != 1:
        return None
    supersets = [wheel.name for wheel in wheels if is_superset(wheel, wheels)]
    return supersets[0] if len(supersets) == 1 else None


def _make_choice(winner: str, overlap: Overlap, contents: Mapping[str, WheelContents], platform: str) -> VariantChoice:
    others = [package_name for package_name in overlap.packages if package_name != winner]
    kept_packages = [
        package_name
        for package_name in others
        # The winner of a family need not be there yet.
        if winner in contents and not contents[package_name].import_names <= contents[winner].import_names
    ]
    return VariantChoice(
        name=winner,
        imports=(overlap.import_name,),
        replaces=tuple(package_name for package_name in others if package_name not in kept_packages),
        overwrites=tuple(kept_packages),
        platforms=(platform,),
    )


def _merge(earlier: VariantChoice, later: VariantChoice) -> VariantChoice:
    return replace(
        earlier,
        imports=_union(earlier.imports, later.imports),
        replaces=_union(earlier.replaces, later.replaces),
        overwrites=_union(earlier.overwrites, later.overwrites),
        platforms=_union(earlier.platforms, later.platforms),
    )


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*first, *second}))


def _family_of(choice: VariantChoice) -> frozenset[str]:
    known = next((family for family in FAMILIES if choice.name in family), ())
    return frozenset({choice.name, *choice.replaces, *choice.overwrites, *known})


def _rename(requirement: RequirementLine, chosen: str) -> RequirementLine:
    return RequirementLine(
        text=_rename_text(requirement.text, {str(requirement.name): chosen}),
        name=chosen,
        origin=f"{requirement.origin} (in place of {requirement.name})",
    )


def _rename_text(override_text: str, chosen_by_name: Mapping[str, str]) -> str:
    """Return a requirement of another package with the same versions and marker; a file's address goes."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        parsed = Requirement(override_text)
    except InvalidRequirement:
        # A bare address of a wheel, whose file says the name.
        marker = override_text.partition(" ; ")[2]
        return f"{next(iter(chosen_by_name.values()))}{f' ; {marker}' if marker else ''}"
    package_name = chosen_by_name.get(normalize_package_name(parsed.name))
    if package_name is None:
        return override_text
    return f"{package_name}{parsed.specifier}{f' ; {parsed.marker}' if parsed.marker else ''}"
