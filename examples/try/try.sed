# What the docker compose files change in an example to try it on one machine: the Event Hubs emulator, and a SIEM without
# TLS, with the user that it has from the start. The emulator shares its network with Fluent Bit, so that both are "this machine".
s|^\( *\)eventhub.connection_string:.*|&\
\1eventhub.brokers: localhost:9092\
\1eventhub.tls: off|
s/^\( *\)http_user: fluent-bit$/\1http_user: elastic/
s/^\( *\)tls: on$/\1tls: off/
/^ *tls\.verify/d
