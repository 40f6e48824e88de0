"""`python -m dbproxy` is `dbproxy`."""

from dbproxy.cli import main

if __name__ == "__main__":
    main()
