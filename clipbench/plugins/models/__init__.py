"""Small models, one file per family. A model is a function of options that returns an `nn.Module`.

It is called after `torch.manual_seed(seed)`, and uses the default initialization of torch unless it says otherwise;
its last layer is called `head`. `inputs` is the number of features (or the shape of an example with more than
one axis), `outputs` the number of classes or of targets.
"""
