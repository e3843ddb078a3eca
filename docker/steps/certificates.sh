# Sourced by the steps that download: a network of its own certificate authority is given as the build secret `ca`.
if [ -s /run/secrets/ca ]; then
    export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca GIT_SSL_CAINFO=/run/secrets/ca
fi
