def summary_rows(folder): return []
