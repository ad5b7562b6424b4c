-- Whether servers are well, and what models they have.
return {}
