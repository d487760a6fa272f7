"""What every test runs under: shapes and types of the annotations are checked at each call."""

from jaxtyping import install_import_hook

import tests.typechecking  # the hook names it by a string

install_import_hook(["vdm", "data"], f"{tests.typechecking.__name__}.check")
pytest_plugins = ["tests.features"]  # which feature is proved by which test
