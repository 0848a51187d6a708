"""How often is the judge wrong, and how soon is it right? Simulates gateway/evidence and what others use."""
