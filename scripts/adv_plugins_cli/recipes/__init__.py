"""The recipes, the methods they know, and how their trainings are run and compared."""
