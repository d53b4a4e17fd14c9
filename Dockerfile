# The image of `python -m study submit --kubernetes`: Ray, the project's dependencies and this checkout.
#   docker build -t REGISTRY/lora-frontier . && docker push REGISTRY/lora-frontier
FROM rayproject/ray:2.60.0-py312
WORKDIR /home/ray/lora-frontier
COPY --chown=ray pyproject.toml README.md LICENSE ./
RUN sudo apt-get update && sudo apt-get install -y --no-install-recommends build-essential \
    && pip install --no-cache-dir -e '.[cluster]'
COPY --chown=ray search_spaces search_spaces
COPY --chown=ray trainables trainables
COPY --chown=ray study study
COPY --chown=ray analysis analysis
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
