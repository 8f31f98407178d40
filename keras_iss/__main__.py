"""`python -m keras_iss`: the command `keras-iss`."""

from keras_iss.cli import main

if __name__ == "__main__":
    main()
