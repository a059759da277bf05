"""Wire types: what is asked and what is answered, field by field, with units."""
