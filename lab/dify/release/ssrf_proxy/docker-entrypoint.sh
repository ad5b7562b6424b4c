#!/bin/sh
# Fills the template from the environment.
set -e
allowed=""
if [ -n "${ALLOW_PRIVATE_IPS}" ]; then
  allowed="acl allowed_ips dst $(echo "${ALLOW_PRIVATE_IPS}" | tr ',' ' ')
http_access allow allowed_ips"
fi
if [ -n "${ALLOW_PRIVATE_DOMAINS}" ]; then
  allowed="$allowed
acl allowed_domains dstdomain $(echo "${ALLOW_PRIVATE_DOMAINS}" | tr ',' ' ')
http_access allow allowed_domains"
fi
# shellcheck disable=SC2016 # the names of what envsubst is to fill, not their values
envsubst '$HTTP_PORT $COREDUMP_DIR' < /etc/squid/squid.conf.template > /tmp/filled
{ sed '/^# ALLOWED$/,$d' /tmp/filled; echo "$allowed"; sed '1,/^# ALLOWED$/d' /tmp/filled; } \
  > /etc/squid/squid.conf
# Squid has given up root's rights when it would open our output.
tail -F /var/log/squid/access.log /var/log/squid/cache.log 2>/dev/null &
exec squid -N
