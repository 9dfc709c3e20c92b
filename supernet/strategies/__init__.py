"""The strategies that train shared weights, one a file; `supernet.catalog.STRATEGIES` names them."""
