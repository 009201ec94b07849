"""The production room: promotion, live scoring, monitoring. No pandas, scikit-learn or Jupyter."""
