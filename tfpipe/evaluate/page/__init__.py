"""The page `report.html`: the results of a run, in one file that opens without a network.

summary    the numbers, all of which are in metrics.json; rows and examples: the texts, which are in rows.json
figures    numbers -> plots; svg: plots -> elements of the page, and PNG files
tables     numbers -> tables of HTML
page       numbers and texts -> the page, a template for each section
"""
