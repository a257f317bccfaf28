"""Tables, plots and the HTML report, from the records of a run."""
