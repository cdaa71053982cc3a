"""An extension of Griffe, which reads the docstrings for the API pages."""

import griffe


class Options(griffe.Extension):
    """Writes the options that a docstring documents out of `**options: Unpack[...]`.

    Their types are those of the `TypedDict`, their defaults those of the base classes. `**options`
    itself stays where the docstring documents it.
    """

    def on_package(self, *, pkg, **kwargs):
        for owner, function in list(_functions(pkg)):
            for parameter in function.parameters:
                annotation = parameter.annotation
                if owner.docstring and str(annotation).startswith("Unpack["):
                    _write_out(parameter, pkg[_inside(pkg, annotation.slice)], owner, function)
                    break


def _functions(parent):
    """Pairs of what is documented and the function with its parameters: a class's `__init__`."""
    for member in parent.members.values():
        if member.is_alias or not (member.is_module or member.is_class or member.is_function):
            continue
        if member.is_function and member.name != "__init__":
            yield member, member
        if member.is_class and "__init__" in member.all_members:
            if "__init__" not in member.members:  # an inherited one, which others document too
                given = member.all_members["__init__"].parameters
                member.set_member(
                    "__init__", griffe.Function("__init__", parameters=griffe.Parameters(*given))
                )
            yield member, member.members["__init__"]
        yield from _functions(member)


def _inside(pkg, expression):
    return expression.canonical_path.removeprefix(f"{pkg.path}.")


def _write_out(options, types, owner, function):
    documented = [
        one.name
        for section in owner.docstring.parse("google", warnings=False)
        if section.kind is griffe.DocstringSectionKind.parameters
        for one in section.value
    ]
    del function.parameters[options.name]
    bases = owner.mro() if owner.is_class else []
    inits = [base.members["__init__"] for base in bases if "__init__" in base.members]
    for name in documented:
        if name in types.all_members and name not in function.parameters:
            defaults = [init.parameters[name].default for init in inits if name in init.parameters]
            function.parameters.add(
                griffe.Parameter(
                    name,
                    annotation=types.all_members[name].annotation,
                    kind=griffe.ParameterKind.keyword_only,
                    default=defaults[0] if defaults else "...",
                )
            )
    if f"**{options.name}" in documented:
        function.parameters.add(options)
