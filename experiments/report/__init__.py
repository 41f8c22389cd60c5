"""The kit that reports are made with: tables, figures, units, statistics, pages."""
