"""Whether shared weights that are trained in all precisions make better files than those trained in fp32."""
