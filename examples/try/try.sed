# What the docker compose files change in an example to try it on one machine: the Event Hubs emulator, and a SIEM without
# TLS. The emulator shares its network with Fluent Bit, so that both are "this machine".
s|^\( *\)eventhub.connection_string:.*|&\
\1eventhub.brokers: localhost:9092\
\1eventhub.tls: off|
s/^\( *\)tls: on$/\1tls: off/
/^ *tls\.verify/d
