"""Nothing to compile yet: setup.cfg says it all.  Optional native modules will be declared here."""

from setuptools import setup

setup()
