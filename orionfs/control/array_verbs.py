"""Carrying out the verbs that change arrays: names become devices, and what is changed is written down, too.

Whatever a verb changes in the configuration is tried first; only then the array is changed, and then the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from orionfs.array.array import Array
from orionfs.array.member import Member
from orionfs.array.policies import COUNTS, parse_policy
from orionfs.array.roster import NO_SLOT
from orionfs.config.edit import Edit
from orionfs.config.graph import inner_arrays, uses
from orionfs.config.spec import MISSING, SpareSpec, Spec
from orionfs.control.array_creation import create_array
from orionfs.control.server import Verbs
from orionfs.device import StorageDevice
from orionfs.errors import NotFound, Refused, UsageError
from orionfs.layers.single import Single
from orionfs.manager import StorageManager


class ArrayVerbs:
    """The handlers of :data:`~orionfs.control.array_schema.ARRAY_VERBS`, over one mount."""

    def __init__(self, manager: StorageManager) -> None:
        self._manager = manager

    def verbs(self) -> Verbs:
        """One handler for each verb."""
        return {
            "array.create": self.create,
            "array.assemble": self.assemble,
            "array.stop": self.stop,
            "array.add": self.add,
            "array.fail": self.fail,
            "array.remove": self.remove,
            "array.replace": self.replace,
            "array.readd": self.readd,
            "array.clear": self.clear,
            "array.scrub": self.scrub,
            "array.pause": self.pause,
            "array.resume": self.resume,
            "array.cancel": self.cancel,
            "array.set": self.set,
            "spare.add": self.add_spares,
            "spare.remove": self.remove_spare,
        }

    # --- arrays ----------------------------------------------------------------------------------------------------

    async def create(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Declare, make and assemble an array."""
        async with self._manager.changing:
            done = await create_array(self._manager, arguments)
        return _answer("array.create", arguments["name"], done)

    async def assemble(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Start what was stopped, with what it is made of."""
        manager, name = self._manager, arguments["array"]
        async with manager.changing:
            spec = await manager.read_spec()
            names = [each for each in _closure(spec, name) if each not in manager.arrays]
            if not names:
                raise Refused(f"{name} runs already", hint=f"orionctl array show {name}")
            if not arguments.get("dry_run"):
                await manager.start(names, force=arguments.get("force", False))
        return _answer("array.assemble", name, [f"{each} assembled" for each in names])

    async def stop(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Stop an array, and the groups that it stands for."""
        manager, name = self._manager, arguments["array"]
        force, forget, dry_run = (arguments.get(key, False) for key in ("force", "forget", "dry_run"))
        async with manager.changing:
            names = self._declared(name)
            running = [each for each in names if each in manager.arrays]
            if not running and not forget:
                raise Refused(f"{name} is stopped already", hint=f"orionctl array assemble {name}")
            for each in running:
                if manager.owner_of(each) not in names:
                    manager.check_unclaimed(each)
            if not force:
                for each in running:
                    await manager.check_released(each)
            if forget:
                manager.check_writable()
                await manager.configuration.preview(lambda edit: edit.remove_array(name))
            if not dry_run:
                for each in running:
                    await manager.stop(each, force=force)
                if forget:
                    await manager.edit(lambda edit: edit.remove_array(name))
        done = [f"{each} stopped" for each in running]
        return _answer("array.stop", name, [*done, f"{name} taken out of the configuration"] if forget else done)

    # --- members ---------------------------------------------------------------------------------------------------

    async def add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Make devices spares, or what they were."""
        name, dry_run = arguments["array"], arguments.get("dry_run", False)
        targets = self._arrays(name)
        done = []
        for label in arguments["devices"]:
            if len(targets) == 1:
                done.append(await self._add(targets[0], label, force=arguments.get("force", False), dry_run=dry_run))
            else:
                done += await self._add_to_pool(name, label, dry_run=dry_run)
        return _answer("array.add", name, done)

    async def _add(self, array: Array, label: str, *, force: bool, dry_run: bool) -> str:
        manager = self._manager
        manager.check_writable()
        async with manager.membership(array.name):
            self._check_free(array, label)
            edit = self._adding(array.name, label)
            await manager.configuration.preview(edit)
            device = await self._open(array.name, label)
            try:
                if dry_run:
                    return f"{label} would be added to {array.name}"
                await array.add(label, device, force=force)
            except BaseException:
                await manager.close(device)
                raise
            finally:
                if dry_run:
                    await manager.close(device)
            manager.spares.note(SpareSpec(label, (array.name,)), array.name)
            await manager.edit(edit)
        return f"{label} added to {array.name}"

    def _adding(self, name: str, label: str) -> Callable[[Edit], None]:
        listed = any(use.label == label and use.owner in ("", name) for use in uses(self._manager.spec))

        def edit(edit: Edit) -> None:
            if not listed:
                edit.add_spare(name, label)

        return edit

    async def _add_to_pool(self, name: str, label: str, *, dry_run: bool) -> list[str]:
        """Make *label* a spare of all groups of *name*, or of all arrays if that is empty."""
        manager = self._manager
        manager.check_writable()
        async with manager.changing:
            edit = _adding_spare(name, label)
            await manager.configuration.preview(edit)
            await manager.spares.check(label)
            if not dry_run:
                spec = await manager.edit(edit)
                for array in manager.arrays.values():
                    if isinstance(array, Array) and any(array.name == use for use in _served(spec, name)):
                        array.background.wake()
        whose = f"the groups of {name}" if name else "all arrays"
        return [f"{label} {'would be' if dry_run else 'is'} a spare of {whose}"]

    def _check_free(self, array: Array, label: str) -> None:
        """Raise unless *label* may be opened: the array may hold it still."""
        for member in array.roster.everyone():
            if member.label != label:
                continue
            if member.active or member.state in ("rebuilding", "replacing", "spare"):
                raise Refused(f"{label} belongs to {array.name} already: it is {member.state}")
            if member.device is not None:
                hint = f"orionctl array re-add {array.name} {label}  , or remove it first"
                raise Refused(f"{label} is a member of {array.name} that is {member.state}", hint=hint)

    async def fail(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take a member out of service."""
        array, member = self._member(arguments)
        async with self._manager.membership(array.name):
            if not arguments.get("dry_run"):
                await array.fail(member.label)
            elif member.active and not array.survives_without(member):
                raise Refused(f"{array.name} cannot do without {member.label}")
        return _answer("array.fail", array.name, [f"{member.label} taken out of service"], self._advice(array))

    async def remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Forget a member that is not in use; the configuration gets who is in its slot instead."""
        array, label = self._listed(arguments["array"], arguments["member"])
        if not label:
            array, member = self._member(arguments)
            label = member.label
            if arguments.get("dry_run") and (member.active or member.state in ("rebuilding", "replacing")):
                hint = f"orionctl array fail {array.name} {label}  first"
                raise Refused(f"{label} is in use ({member.state})", hint=hint)
        if not arguments.get("dry_run"):
            await self._manager.remove_member(array, label)
        return _answer("array.remove", array.name, [f"{label} removed"], self._advice(array))

    def _listed(self, name: str, wanted: str) -> tuple[Array, str]:
        """The member *wanted* if it is in the configuration alone: the array does not know it any more.

        Otherwise its label is empty.
        """
        arrays = self._arrays(name)
        for array in arrays:
            known = {member.label for member in array.roster.everyone()}
            spec = self._manager.spec.array(array.name)
            for label in spec.members if spec is not None else ():
                if label not in known and label != MISSING and wanted in (label, label.rsplit("/", 1)[-1]):
                    return array, label
        return arrays[0], ""

    async def replace(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have a spare, or a new device, take the place of a member."""
        array, member = self._member(arguments)
        by, force, dry_run = arguments.get("by", ""), arguments.get("force", False), arguments.get("dry_run", False)
        done = []
        spare = self._spare(array, by)
        _check_replaceable(array, member, by)
        if by and spare is None:
            done.append(await self._add(array, by, force=force, dry_run=dry_run))
        label = member.label
        if dry_run:
            done.append(f"{label} would be replaced")
        elif not member.active:
            await self._manager.remove_member(array, label, instead=by)
            done.append(f"{label} removed; {by} takes its place")
        else:
            async with self._manager.membership(array.name):
                await array.replace(label, spare.label if spare is not None else by)
            done.append(f"{label} is being replaced")
        return _answer("array.replace", array.name, done, self._advice(array))

    def _spare(self, array: Array, name: str) -> Member | None:
        """The spare that *array* has under *name*."""
        if not name:
            return None
        try:
            member = array.roster.find(name)
        except NotFound:
            return None
        return member if member.slot == NO_SLOT else None

    async def readd(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take a former member back."""
        array, member = self._member(arguments)
        async with self._manager.membership(array.name):
            if arguments.get("dry_run"):
                return _answer("array.readd", array.name, [f"{member.label} would be taken back"])
            device: StorageDevice | None = None
            if member.device is None:
                device = await self._open(array.name, member.label)
            try:
                await array.readd(member.label, device)
            except BaseException:
                if device is not None:
                    await self._manager.close(device)
                raise
        return _answer("array.readd", array.name, [f"{member.label} is back"], self._advice(array))

    async def clear(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Forget error counters."""
        name, member = arguments["array"], arguments.get("member", "")
        devices = [self._manager.device(each) for each in self._declared(name)]
        cleared = []
        for device in devices:
            if arguments.get("dry_run"):
                cleared.append(device.name)
            elif isinstance(device, Single):
                device.clear()
                cleared.append(device.name)
            elif not member or self._has(device, member):
                await device.clear(member)
                cleared.append(device.name)
        if not cleared:
            raise NotFound(f"{name} has no member {member}", hint=f"orionctl array show {name}")
        return _answer("array.clear", name, [f"error counters of {member or each} cleared" for each in cleared])

    # --- jobs and policies -----------------------------------------------------------------------------------------

    async def scrub(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Queue a check or a repair."""
        kind = arguments["kind"]
        return self._each("array.scrub", arguments, f"{kind} of {{}} asked for", lambda array: array.request(kind))

    async def pause(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Let jobs wait."""
        return self._each("array.pause", arguments, "jobs of {} paused", lambda array: array.pause())

    async def resume(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Let jobs go on."""
        return self._each("array.resume", arguments, "jobs of {} go on", lambda array: array.resume())

    async def cancel(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Forget what was asked for."""
        return self._each("array.cancel", arguments, "scrubs of {} cancelled", lambda array: array.cancel())

    def _each(self, verb: str, arguments: dict[str, Any], text: str, act: Callable[[Array], None]) -> dict[str, Any]:
        arrays = self._arrays(arguments["array"])
        if not arguments.get("dry_run"):
            for array in arrays:
                act(array)
        return _answer(verb, arguments["array"], [text.format(array.name) for array in arrays])

    async def set(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Change policies of what runs, and of the configuration."""
        manager, name = self._manager, arguments["array"]
        manager.check_writable()
        chosen = parse_policies(arguments["policies"])
        if not chosen:
            raise UsageError("no policy is named", hint="write it like read_policy=nearest")

        def change(edit: Edit) -> None:
            for policy, value in chosen.items():
                edit.set_key(name, policy, int(value) if policy in COUNTS else value)

        arrays = self._arrays(name)
        await manager.configuration.preview(change)
        if not arguments.get("dry_run"):
            for array in arrays:
                for policy, value in chosen.items():
                    await array.set_policy(policy, value)
            await manager.edit(change)
        return _answer("array.set", name, [f"{policy} is {value}" for policy, value in chosen.items()])

    # --- shared spares ---------------------------------------------------------------------------------------------

    async def add_spares(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Make devices spares of all arrays."""
        done = []
        for label in arguments["devices"]:
            done += await self._add_to_pool("", label, dry_run=arguments.get("dry_run", False))
        return _answer("spare.add", "", done)

    async def remove_spare(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Forget a spare that nobody holds."""
        manager = self._manager
        manager.check_writable()
        async with manager.changing:
            spare = manager.spares.named(arguments["device"])
            if spare.holder:
                hint = f"orionctl array remove {spare.holder} {spare.label}"
                raise Refused(f"{spare.label} belongs to {spare.holder}", hint=hint)
            label = spare.label
            await manager.configuration.preview(lambda edit: edit.remove_spare(label))
            if not arguments.get("dry_run"):
                await manager.edit(lambda edit: edit.remove_spare(label))
        return _answer("spare.remove", "", [f"{label} is no spare any more"])

    # --- names -----------------------------------------------------------------------------------------------------

    def _declared(self, name: str) -> list[str]:
        """The arrays that *name* stands for, outer ones first."""
        spec = self._manager.spec
        names = [name] if spec.array(name) is not None or name in self._manager.arrays else []
        names += [part.name for part in spec.parts(name)]
        if not names:
            raise NotFound(f"there is no array {name}", hint=f"there is: {', '.join(spec.names)}")
        return names

    def _arrays(self, name: str) -> list[Array]:
        """The arrays with members of their own that *name* stands for: its groups, if it has any."""
        spec = self._manager.spec
        names = [part.name for part in spec.parts(name)] or self._declared(name)
        found = []
        for each in names:
            device = self._manager.device(each)
            if isinstance(device, Single):
                raise Refused(f"{each} is one device of a jbod, which has no redundancy")
            found.append(device)
        return found

    def _member(self, arguments: dict[str, Any]) -> tuple[Array, Member]:
        """The member that was named, and its array."""
        name, wanted = arguments["array"], arguments["member"]
        arrays = self._arrays(name)
        having = [array for array in arrays if self._has(array, wanted)]
        if len(having) > 1:
            listed = ", ".join(array.name for array in having)
            raise UsageError(f"{wanted} may be in any of {listed}", hint=f"name one: {having[0].name} {wanted}")
        array = having[0] if having else arrays[0]
        return array, array.roster.find(wanted)  # raises the sentence that lists what there is

    def _has(self, array: Array, name: str) -> bool:
        try:
            array.roster.find(name)
        except NotFound:
            return False
        return True

    async def _open(self, name: str, label: str) -> StorageDevice:
        spec = self._manager.spec.array(name)
        direct = self._manager.options.direct or (spec is not None and spec.direct)
        return await self._manager.opener.open(label, direct=direct)

    def _advice(self, array: Array) -> str:
        return str(array.describe().details.get("next", ""))


def parse_policies(texts: Iterable[str]) -> dict[str, str]:
    """Policies by name, from texts like ``read_policy=nearest``.  Raises UsageError for what cannot be."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{text} says nothing", hint=f"write it like {text or 'read_policy'}=VALUE")
        parse_policy(name, value)
        found[name] = value
    return found


def _check_replaceable(array: Array, member: Member, by: str) -> None:
    """Raise before a new device is made a spare that could not be used for that."""
    if not member.active and not by:
        hint = f"name who takes its place: orionctl array replace {array.name} {member.label} NEW"
        raise Refused(f"{member.label} is {member.state}", hint=hint)
    if member.active and array.roster.gone():
        hint = f"orionctl array add {array.name} NEW  , and wait for the rebuild"
        raise Refused(f"{array.name} is degraded, and a new device fills its empty slot first", hint=hint)
    if member.copy is not None:
        raise Refused(f"{member.label} is being replaced already, by {member.copy.label}", hint="wait for it")


def _adding_spare(name: str, label: str) -> Callable[[Edit], None]:
    return lambda edit: edit.add_spare(name, label)


def _served(spec: Spec, name: str) -> list[str]:
    return [part.name for part in spec.parts(name)] if name else [array.name for array in spec.arrays]


def _closure(spec: Spec, name: str) -> list[str]:
    """*name*, what it stands for, and all that it is made of."""
    first = spec.array(name)
    waiting = [first] if first is not None else list(spec.parts(name))
    if not waiting:
        raise NotFound(f"there is no array {name} in {spec.path}", hint=f"there is: {', '.join(spec.names)}")
    found: list[str] = []
    while waiting:
        array = waiting.pop()
        found.append(array.name)
        waiting += inner_arrays(spec, array)
    return found


def _answer(verb: str, array: str, done: list[str], advice: str = "") -> dict[str, Any]:
    return {"schema": f"orionfs.{verb}/1", "array": array, "done": done, "next": advice}
