"""`python -m perdure`: the `perdure` command of this interpreter, wherever its console script is."""

from perdure.cli.main import main

if __name__ == "__main__":
    main(prog_name="perdure")
