"""Does showing the evidence help? Data sets, the methods compared, and the analysis of where a model looks."""
