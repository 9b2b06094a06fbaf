#!/usr/bin/env bash
# A small internet with real NATs, out of Linux network namespaces and nftables, for the tests beside it. Needs root, iproute2,
# nftables and conntrack. Nothing is made in the caller's own network namespace; labs of different names run side by side.
#
#   natlab.sh LAB up [--client-nat T] [--connector-nat T] [--same-nat]
#   natlab.sh LAB down                    also kills what still runs in the lab's namespaces
#   natlab.sh LAB ns HOST                 the namespace's name: run things with `ip netns exec`
#   natlab.sh LAB blackhole sites|relay on|off   silently drop all UDP between the two sites, or to and from the relay
#   natlab.sh LAB roam HOST SITE          move HOST's cable to another site: new address, new NAT, new route
#   natlab.sh LAB relaybytes              what has crossed the relay's access link so far, both directions together
#
#   relay 203.0.113.10 --+                                +-- cgw  198.51.100.2  -- LAN 192.168.1.0/24 -- client .10
#                        +-- inet (no private routes) ----+-- cgw2 198.51.100.18 -- LAN 192.168.2.0/24 (to roam to)
#                                                         +-- ngw  198.51.100.34 -- LAN 10.20.0.0/24 -- connector .10
#   resource 10.50.0.10 has one cable, to connector, and no default route: what reaches it went through the connector.
#
# SITE: client client2 connector.   HOST: inet relay cgw cgw2 ngw client connector resource
# NAT T: none            routed public addresses (198.18.x.0/24), no filter
#        port-restricted mapping by port preservation, filtering by address and port: plain Linux masquerade
#        symmetric       another port for every destination: masquerade fully-random
#        udp-blocked     port-restricted, and all UDP dropped
#        tcp443          port-restricted, and only TCP to port 443 leaves
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
LAB=${1:?lab name}; CMD=${2:?command}; shift 2
[[ $LAB =~ ^[a-z0-9]{1,12}$ ]] || { echo "natlab: lab name: 1-12 of a-z0-9" >&2; exit 2; }
RUN=${NATLAB_RUN:-/run/natlab}/$LAB; P=nl-$LAB
UDP_TIMEOUT=120 # seconds that a NAT keeps an idle UDP mapping
declare -A GW=([client]=cgw [client2]=cgw2 [connector]=ngw) IDX=([client]=1 [client2]=2 [connector]=3)
x(){ local n=$1; shift; nsenter --net="/run/netns/$P-$n" "$@"; }
get(){ cat "$RUN/$1"; }
put(){ echo "$2" >"$RUN/$1"; }
die(){ echo "natlab: $*" >&2; exit 1; }

lan4(){ # SITE -> its LAN's first three octets
  case $(get "nat.$1") in none) echo "198.18.${IDX[$1]}";; *) get "lan.$1";; esac; }
wan4(){ echo "198.51.100.$(( 16*(IDX[$1]-1) + 2 ))"; }

ruleset(){ # SITE -> nft ruleset of its gateway, on stdout
  local lan type fw='' nat='' fwd='iifname "br0" accept'
  lan=$(lan4 "$1"); type=$(get "nat.$1")
  case $type in
    none) fwd=accept;;
    port-restricted|udp-blocked|tcp443) nat="oifname \"wan\" ip saddr $lan.0/24 masquerade";;
    symmetric) nat="oifname \"wan\" ip saddr $lan.0/24 masquerade fully-random";;
    *) die "unknown NAT type $type";;
  esac
  case $type in
    udp-blocked) fw='meta l4proto udp drop';;
    tcp443) fw=$'iifname "br0" meta l4proto != { tcp, icmp } drop\n    iifname "br0" tcp dport != 443 drop';;
  esac
  cat <<R
flush ruleset
table inet fw {
  chain input { type filter hook input priority 0; policy drop;
    iifname { "lo", "br0" } accept
    ct state established,related accept
    meta l4proto icmp accept
  }
  chain forward { type filter hook forward priority 0; policy drop;
    ct state invalid drop
    $fw
    ct state established,related accept
    $fwd
  }
}
table ip nat {
  chain post { type nat hook postrouting priority 100;
    $nat
  }
}
R
}
apply_nat(){ # SITE
  ruleset "$1" | x "${GW[$1]}" nft -f - || { ruleset "$1" | cat -n >&2; die "nft failed on ${GW[$1]}"; }
  x "${GW[$1]}" conntrack -F >/dev/null 2>&1 || true; }
addr_host(){ # HOST: address and default route, by the site that it is plugged in
  local s n l; read -r s n <"$RUN/host.$1"; l=$(lan4 "$s")
  printf '%s\n' "link set eth0 up" "addr flush dev eth0 scope global" "addr add $l.$n/24 dev eth0" \
    "route replace default via $l.1" | ip -n "$P-$1" -batch -; }
base(){ # NS FORWARDING: loopback and what the kernel is to do
  x "$1" bash -c "ip link set lo up; cd /proc/sys/net; echo 0 >ipv6/conf/default/accept_ra
    if [ $2 = 1 ]; then echo 1 >ipv4/ip_forward
      echo $UDP_TIMEOUT >netfilter/nf_conntrack_udp_timeout; echo $UDP_TIMEOUT >netfilter/nf_conntrack_udp_timeout_stream
      echo 0 >netfilter/nf_conntrack_tcp_loose; fi"; }
plug(){ # HOST SITE NUM: a cable to the site's switch; the namespaces exist
  put "host.$1" "$2 $3"; ip link add eth0 netns "$P-$1" type veth peer name "p-$1" netns "$P-${GW[$2]}"
  printf '%s\n' "link set p-$1 master br0" "link set p-$1 up" | ip -n "$P-${GW[$2]}" -batch -
  addr_host "$1"; }
site(){ # SITE: its gateway's two sides, and the way back where its LAN is public
  local g=${GW[$1]} l; l=$(lan4 "$1")
  printf '%s\n' "link add br0 type bridge forward_delay 0" "link set br0 up" "link set wan up" "addr add $l.1/24 dev br0" \
    "addr add $(wan4 "$1")/28 dev wan" "route add default via 198.51.100.$((16*(IDX[$1]-1)+1))" | ip -n "$P-$g" -batch -
  ip -n "$P-inet" route replace "198.18.${IDX[$1]}.0/24" via "$(wan4 "$1")"; }

case $CMD in
up)
  mkdir -p "${RUN%/*}"; [[ -d $RUN ]] && "$0" "$LAB" down
  mkdir "$RUN"; SAME=
  for s in client client2 connector; do put "nat.$s" port-restricted; done
  put lan.client 192.168.1; put lan.client2 192.168.2; put lan.connector 10.20.0
  while (($#)); do case $1 in
    --client-nat) put nat.client "$2"; shift;; --connector-nat) put nat.connector "$2"; shift;; --same-nat) SAME=1;;
    *) die "option $1";; esac; shift; done
  trap 'rc=$?; [[ $rc -ne 0 ]] && { echo "natlab: up failed, cleaning" >&2; "$0" "$LAB" down; }' EXIT
  for n in inet relay cgw cgw2 ngw client connector resource; do ip netns add "$P-$n"; done
  for n in inet cgw cgw2 ngw; do base $n 1; done; for n in relay client connector resource; do base $n 0; done
  ip -batch - <<B
link add relay netns $P-inet type veth peer name eth0 netns $P-relay
link add w1 netns $P-inet type veth peer name wan netns $P-cgw
link add w2 netns $P-inet type veth peer name wan netns $P-cgw2
link add w3 netns $P-inet type veth peer name wan netns $P-ngw
link add eth1 netns $P-connector type veth peer name eth0 netns $P-resource
B
  ip -n "$P-inet" -batch - <<B
link set relay up
link set w1 up
link set w2 up
link set w3 up
addr add 203.0.113.1/28 dev relay
addr add 198.51.100.1/28 dev w1
addr add 198.51.100.17/28 dev w2
addr add 198.51.100.33/28 dev w3
route add blackhole 10.0.0.0/8
route add blackhole 192.168.0.0/16
B
  printf '%s\n' "link set eth0 up" "addr add 203.0.113.10/28 dev eth0" "route add default via 203.0.113.1" | ip -n "$P-relay" -batch -
  for s in client client2 connector; do site $s; done
  plug client client 10
  if [[ $SAME ]]; then plug connector client 20; else plug connector connector 10; fi
  printf '%s\n' "link set eth1 up" "addr add 10.50.0.2/24 dev eth1" | ip -n "$P-connector" -batch -
  printf '%s\n' "link set eth0 up" "addr add 10.50.0.10/24 dev eth0" | ip -n "$P-resource" -batch -
  for s in client client2 connector; do apply_nat $s; done
  trap - EXIT ;;
down)
  for f in /run/netns/"$P"-*; do [[ -e $f ]] || continue; n=${f##*/}
    for p in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null || true; done
    ip netns del "$n" 2>/dev/null || rm -f "$f"; done
  rm -rf "$RUN" ;;
ns) echo "$P-$1" ;;
blackhole)
  case $1 in
    sites) rules=$'iifname { "w1", "w2" } oifname "w3" meta l4proto udp drop\n    iifname "w3" oifname { "w1", "w2" } meta l4proto udp drop';;
    relay) rules=$'iifname "relay" meta l4proto udp drop\n    oifname "relay" meta l4proto udp drop';;
    *) die "blackhole $1";; esac
  if [[ $2 == on ]]; then x inet nft -f - <<R
table inet bh_$1 {
  chain forward { type filter hook forward priority -10;
    $rules
  }
}
R
  else x inet nft delete table inet "bh_$1"; fi ;;
roam) read -r old n <"$RUN/host.$1"; [[ $old == "$2" ]] && exit 0
  ip -n "$P-${GW[$old]}" link set "p-$1" netns "$P-${GW[$2]}"; put "host.$1" "$2 $n"
  printf '%s\n' "link set p-$1 master br0" "link set p-$1 up" | ip -n "$P-${GW[$2]}" -batch -; addr_host "$1" ;;
relaybytes) x inet bash -c 'cat /proc/net/dev' | awk '$1=="relay:" { print $2 + $10 }' ;;
*) die "unknown command $CMD" ;;
esac
