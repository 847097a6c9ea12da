"""From stored records to comparisons, verdicts and answers to claims."""
