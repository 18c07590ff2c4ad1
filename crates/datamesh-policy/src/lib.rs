//! Policies in Cedar: the schema, the entities, layered policy sets, and decisions with their reasons.
