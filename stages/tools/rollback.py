"""What `make rollback` does: the version that was champion before is champion again, at once, for the app too."""

import argparse

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.models import params
from stages.tracking.registered_model import RegisteredModel
from stages.tracking.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", help="of the registered model; default: that of the data in params.yaml")
    parser.add_argument("--to", metavar="VERSION", help="this version, whether it was champion before or not")
    arguments = parser.parse_args()
    name = arguments.name or f"{params.read().data.source}-classifier"
    with Store.of_repository(paths.repository_root()).exclusive() as client:
        done = RegisteredModel(client, name).roll_back(arguments.to)
    print(f"{name}: {done}. It stays until something newer is registered and passes the gate, or you choose again.")


if __name__ == "__main__":
    with one_line_errors("rollback"):
        main()
