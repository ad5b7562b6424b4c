#!/bin/sh
# Fills the templates from the environment; nginx's own variables stay.
set -e
if [ "${NGINX_HTTPS_ENABLED}" = true ]; then
  HTTPS_CONFIG=$(envsubst < /etc/nginx/https.conf.template)
else
  HTTPS_CONFIG=""
fi
export HTTPS_CONFIG
names=$(env | sed -n 's/^\(NGINX_[A-Z_]*\|HTTPS_CONFIG\)=.*/$\1/p' | tr '\n' ' ')
envsubst "$names" < /etc/nginx/nginx.conf.template > /etc/nginx/nginx.conf
envsubst "$names" < /etc/nginx/proxy.conf.template > /etc/nginx/proxy.conf
envsubst "$names" < /etc/nginx/conf.d/default.conf.template > /etc/nginx/conf.d/default.conf
exec nginx -g 'daemon off;'
