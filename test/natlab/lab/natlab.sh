#!/usr/bin/env bash
# A small internet with real NATs, out of Linux network namespaces and nftables, for the tests beside it. Needs root, iproute2,
# nftables and conntrack. Nothing is made in the caller's own network namespace; labs of different names run side by side.
#
#   natlab.sh LAB up [--client-nat T] [--connector-nat T] [--client-cgn T] [--shared-cgn T] [--same-nat] [--v6]
#   natlab.sh LAB down                    also kills what still runs in the lab's namespaces
#   natlab.sh LAB ns HOST                 the namespace's name: run things with `ip netns exec`
#   natlab.sh LAB nat SITE T              another NAT from now on; what was mapped is forgotten
#   natlab.sh LAB blackhole sites|relay|relay2 on|off   silently drop all UDP between the two sites, or to and from that relay
#   natlab.sh LAB blackhole probes on|off                between the two sites only what is framed as Sallyport's own (0x30 to 0x3f)
#   natlab.sh LAB roam HOST SITE          move HOST's cable to another site: new address, new NAT, new route
#   natlab.sh LAB readdr HOST N           another address on the same LAN: N is its last octet
#   natlab.sh LAB family HOST 4|6|both    which IP versions HOST's network has (with --v6)
#   natlab.sh LAB named ADDRESS...        what the relay's name relay.natlab stands for on all hosts from now on
#   natlab.sh LAB dns HOST                HOST asks DNS for the relay's name from now on; the first of its two name servers is dead
#   natlab.sh LAB relayaddr ADDRESS...    the addresses that the relay's interface has from now on (203.0.113.x); none: it has none
#   natlab.sh LAB rebind SITE [newip]     its NAT reboots: mappings lost, other ports from now on (newip: another WAN address, too)
#   natlab.sh LAB link HOST down|up       HOST's cable: carrier lost, what is sent vanishes
#   natlab.sh LAB link HOST off|on        HOST's own interface: address and routes go, sends fail
#   natlab.sh LAB mtu SITE BYTES          what the access link of a site carries; larger packets are dropped, and ICMP says so
#   natlab.sh LAB hostmtu HOST BYTES      what a host's own interface carries; larger packets are refused to it, and dropped towards it
#   natlab.sh LAB udptimeout SITE SECONDS for how long its NAT keeps a UDP mapping that is idle
#   natlab.sh LAB mappings SITE ADDRESS   how many UDP mappings towards that address its NAT has now
#   natlab.sh LAB mapper SITE on|off [upnp]    its gateway maps ports by PCP, NAT-PMP and UPnP (miniupnpd), at another address outside
#   natlab.sh LAB mapped SITE            the rules of what is mapped there
#   natlab.sh LAB dad HOST tentative|failed|done   an IPv6 address (with --v6) whose duplicate detection goes on, has failed, has passed
#   natlab.sh LAB nat64 HOST             HOST has IPv6 only from now on (with --v6), and the internet has a NAT64 for it (tayga)
#   natlab.sh LAB relaybytes              what has crossed the relay's access link so far, both directions together
#
#   relay 203.0.113.10 --+                                +-- cgw  198.51.100.2  -- LAN 192.168.1.0/24 -- client .10
#                    .11 +-- inet (no private routes) ----+-- cgw2 198.51.100.18 -- LAN 192.168.2.0/24 (to roam to)
#                                                         +-- ngw  198.51.100.34 -- LAN 10.20.0.0/24 -- connector .10
#   Each gateway has three more addresses after its own, for symmetric-pool. With --client-cgn a second NAT, cgn, has cgw's address,
#   and cgw is 100.64.1.2 behind it. With --shared-cgn, ngw is behind it, too, as 100.64.1.3.
#   With --v6 every site also has a public network 2001:db8:SITE:100::/64, not translated: its hosts and gateway have the same last
#   numbers as in IPv4, and what the NAT's type lets in and out holds there, too. The relay is 2001:db8:9::10, and programs on all
#   hosts know both its addresses by the name relay.natlab.
#   resource 10.50.0.10 has one cable, to connector, and no default route: what reaches it went through the connector.
#
# SITE: client client2 connector.   HOST: inet relay relay2 cgw cgw2 ngw client connector resource (cgn)
# NAT T: none            routed public addresses (198.18.x.0/24), no filter
#        firewall        routed public addresses, and only inside may begin
#        full-cone       one port for all destinations, open to everybody; hairpin
#        addr-restricted one port for all destinations, open to addresses that were written to; hairpin
#        port-restricted mapping by port preservation, filtering by address and port: plain Linux masquerade
#        eim-apdf        as port-restricted, but never port-preserving (ports of a range), hairpin
#        symmetric       another port for every destination: masquerade fully-random
#        symmetric-pool  as symmetric, and each flow takes one of 4 public addresses
#        udp-blocked     port-restricted, and all UDP dropped
#        tcp443          port-restricted, and only TCP to port 443 leaves
#        web443          port-restricted, and only TCP and UDP to port 443 leave
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
  case $(get "nat.$1") in none|firewall) echo "198.18.${IDX[$1]}";; *) get "lan.$1";; esac; }
outer4(){ echo "198.51.100.$(( 16*(IDX[$1]-1) + 2 + $(get "wanip.$1") ))"; }
wan4(){ if [[ -e $RUN/cgn.$1 ]]; then echo "100.64.${IDX[$1]}.2"; else outer4 "$1"; fi; }
masq(){ # LAN EPOCH: ports are kept, and after each reboot another range of them is used
  local b=$((2000 + $2 % 30 * 1000))
  (($2 == 0)) || echo "oifname \"wan\" ip saddr $1.0/24 meta l4proto { tcp, udp } masquerade to :$b-$((b + 999))"
  echo "oifname \"wan\" ip saddr $1.0/24 masquerade"; }

cone(){ # TYPE PUBLIC LAN -> one port for all destinations: maps of what was sent, kept by the packets themselves
  local in='' ports=''
  local timed="flags dynamic,timeout; size 65535; timeout ${UDP_TIMEOUT}s;"
  case $1 in
    full-cone) in="iifname \"wan\" ip daddr $2 dnat ip to udp dport map @in";;
    addr-restricted) in="iifname \"wan\" ip daddr $2 ip saddr . udp dport @written dnat ip to udp dport map @in";;
    eim-apdf) ports="oifname \"wan\" ip saddr $3.0/24 meta l4proto { tcp, udp } masquerade to :2000-2999";;
  esac
  cat <<R
  map out { type ipv4_addr . inet_service : ipv4_addr . inet_service; $timed }
  map in { type inet_service : ipv4_addr . inet_service; $timed }
  set written { type ipv4_addr . inet_service; $timed }
  chain pre { type nat hook prerouting priority -100;
    $in
    iifname "br0" ip daddr $2 dnat ip to udp dport map @in
  }
  chain post { type nat hook postrouting priority 100;
    oifname "wan" meta l4proto udp snat ip to ip saddr . udp sport map @out
    $ports
    oifname "wan" ip saddr $3.0/24 masquerade
    oifname "br0" ip saddr $3.0/24 ct status dnat snat ip to ip saddr . udp sport map @out
    oifname "br0" ip saddr $3.0/24 ct status dnat snat ip to $2
  }
  chain track { type filter hook postrouting priority 110;
    meta l4proto != udp return
    oifname "br0" ct status & (snat|dnat) != snat|dnat return
    oifname "wan" update @written { ip daddr . udp sport }
    meta l4proto udp ct direction original update @out { ct original ip saddr . ct original proto-src : ip saddr . udp sport }
    meta l4proto udp ct direction original update @in { udp sport : ct original ip saddr . ct original proto-src }
  }
R
}
ruleset(){ # TYPE PUBLIC LAN EPOCH -> ruleset of a gateway, on stdout
  local type=$1 lan=$3 nat='' fw='' fwd='iifname "br0" accept'
  case $type in
    none) fwd=accept;;
    firewall) ;;
    port-restricted|udp-blocked|tcp443|web443) nat=$(masq "$lan" "$4");;
    symmetric) nat="oifname \"wan\" ip saddr $lan.0/24 masquerade fully-random";;
    symmetric-pool) nat="oifname \"wan\" ip saddr $lan.0/24 meta l4proto { tcp, udp } snat to $2-${2%.*}.$(( ${2##*.}+3 )):1024-65535 fully-random
    oifname \"wan\" ip saddr $lan.0/24 masquerade";;
    full-cone|addr-restricted|eim-apdf) ;;
    *) die "unknown NAT type $type";;
  esac
  case $type in
    udp-blocked) fw='meta l4proto udp drop';;
    tcp443) fw=$'iifname "br0" meta l4proto != { tcp, icmp, icmpv6 } drop\n    iifname "br0" tcp dport != 443 drop';;
    web443) fw=$'iifname "br0" meta l4proto != { tcp, udp, icmp, icmpv6 } drop\n    iifname "br0" tcp dport != 443 drop\n    iifname "br0" udp dport != 443 drop';;
  esac
  cat <<R
flush ruleset
table inet fw {
  chain input { type filter hook input priority 0; policy drop;
    iifname { "lo", "br0" } accept
    ct state established,related accept
    meta l4proto { icmp, icmpv6 } accept
  }
  chain forward { type filter hook forward priority 0; policy drop;
    ct state invalid drop
    $fw
    ct state established,related accept
    ct status dnat accept
    $fwd
  }
}
R
  case $type in
    full-cone|addr-restricted|eim-apdf) printf 'table ip nat {\n%s\n}\n' "$(cone "$type" "$2" "$lan")";;
    *) printf 'table ip nat {\n  chain post { type nat hook postrouting priority 100;\n    %s\n  }\n}\n' "$nat";;
  esac
}
load(){ # NS TYPE PUBLIC LAN EPOCH
  ruleset "$2" "$3" "$4" "$5" | x "$1" nft -f - || { ruleset "$2" "$3" "$4" "$5" | cat -n >&2; die "nft failed on $1"; }
  x "$1" conntrack -F >/dev/null 2>&1 || true; }
apply_nat(){ # SITE
  load "${GW[$1]}" "$(get "nat.$1")" "$(wan4 "$1")" "$(lan4 "$1")" "$(get "epoch.$1")"
  if [[ -e $RUN/cgn.$1 ]]; then load cgn "$(get "cgn.$1")" "$(outer4 "$1")" "100.64.${IDX[$1]}" "$(get "epoch.$1")"; fi; }
addr_host(){ # HOST: address and default route, by the site that it is plugged in
  local s n l; read -r s n <"$RUN/host.$1"; l=$(lan4 "$s")
  printf '%s\n' "link set eth0 up" "addr flush dev eth0 scope global" "addr add $l.$n/24 dev eth0" \
    "route replace default via $l.1" | ip -n "$P-$1" -batch -
  v6_host "$1"; }
v6_lan(){ # SITE: its gateway's address inside
  [[ ! -e $RUN/v6 ]] || ip -n "$P-${GW[$1]}" addr replace "2001:db8:${IDX[$1]}:100::1/64" dev br0 nodad; }
v6_host(){ # HOST
  local s n; read -r s n <"$RUN/host.$1"; [[ -e $RUN/v6 ]] || return 0
  ip -n "$P-$1" addr replace "2001:db8:${IDX[$s]}:100::$n/64" dev eth0 nodad
  ip -n "$P-$1" -6 route replace default via "2001:db8:${IDX[$s]}:100::1"; }
v6_site(){ # SITE: its gateway's two sides, and the way there
  local i=${IDX[$1]} g=${GW[$1]}; [[ -e $RUN/v6 ]] || return 0
  v6_lan "$1"
  for ns in inet "$g"; do x "$ns" bash -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'; done
  ip -n "$P-inet" addr add "2001:db8:$i::1/64" dev "w$i" nodad; ip -n "$P-$g" addr add "2001:db8:$i::2/64" dev wan nodad
  ip -n "$P-$g" -6 route add default via "2001:db8:$i::1"; ip -n "$P-inet" -6 route add "2001:db8:$i:100::/64" via "2001:db8:$i::2"; }
v6_relay(){ # the relay's second address, and its name: `ip netns exec` shows a namespace its own /etc/hosts
  [[ -e $RUN/v6 ]] || return 0
  ip -n "$P-inet" addr add 2001:db8:9::1/64 dev relay nodad
  printf '%s\n' "addr add 2001:db8:9::10/64 dev eth0 nodad" "route add default via 2001:db8:9::1" | ip -n "$P-relay" -batch -
  named 203.0.113.10 2001:db8:9::10; }
named(){ # ADDRESS...: written in place, since programs that run see this very file
  local n a; for n in relay client connector; do mkdir -p "/etc/netns/$P-$n"
    for a in "$@"; do echo "$a relay.natlab"; done >"$RUN/names"
    { echo "127.0.0.1 localhost"; [[ -e $RUN/dns.$n ]] || cat "$RUN/names"; } >"/etc/netns/$P-$n/hosts"; done; }
dns(){ # HOST
  : >"$RUN/dns.$1"; sed -i /relay.natlab/d "/etc/netns/$P-$1/hosts"
  printf 'nameserver 127.0.0.1\nnameserver 127.0.0.2\n' >"/etc/netns/$P-$1/resolv.conf"
  x "$1" node "${0%/*}/names.mjs" "$RUN/names" </dev/null >/dev/null 2>&1 & }
base(){ # NS FORWARDING: loopback and what the kernel is to do
  x "$1" bash -c "ip link set lo up; cd /proc/sys/net; echo 0 >ipv6/conf/default/accept_ra; echo 0 >ipv6/conf/default/accept_dad
    if [ $2 = 1 ]; then echo 1 >ipv4/ip_forward
      { echo 0 >bridge/bridge-nf-call-iptables; } 2>/dev/null || true
      echo $UDP_TIMEOUT >netfilter/nf_conntrack_udp_timeout; echo $UDP_TIMEOUT >netfilter/nf_conntrack_udp_timeout_stream
      echo 0 >netfilter/nf_conntrack_tcp_loose; fi"; }
plug(){ # HOST SITE NUM: a cable to the site's switch; the namespaces exist
  put "host.$1" "$2 $3"; ip link add eth0 netns "$P-$1" type veth peer name "p-$1" netns "$P-${GW[$2]}"
  printf '%s\n' "link set p-$1 master br0" "link set p-$1 up" | ip -n "$P-${GW[$2]}" -batch -
  addr_host "$1"; }
outside(){ # NS SITE: the addresses of the side that the internet sees
  local k first; first=$(outer4 "$2")
  for k in 0 1 2 3; do echo "addr add ${first%.*}.$(( ${first##*.}+k ))/28 dev wan"; done | ip -n "$P-$1" -batch -
  printf '%s\n' "link set wan up" "route replace default via 198.51.100.$((16*(IDX[$2]-1)+1))" | ip -n "$P-$1" -batch -; }
subscriber(){ # GATEWAY: its cable to the provider's NAT
  ip link add "p-$1" netns "$P-cgn" type veth peer name wan netns "$P-$1"
  printf '%s\n' "link set p-$1 master br0" "link set p-$1 up" | ip -n "$P-cgn" -batch -; }
site(){ # SITE: its gateway's two sides, and the way back where its LAN is public
  local g=${GW[$1]} i=${IDX[$1]}
  printf '%s\n' "link add br0 type bridge forward_delay 0" "link set br0 up" "addr add $(lan4 "$1").1/24 dev br0" | ip -n "$P-$g" -batch -
  if [[ -e $RUN/cgn.$1 ]]; then outside cgn "$1"
    printf '%s\n' "addr add 100.64.$i.1/24 dev br0" "link set br0 up" | ip -n "$P-cgn" -batch -
    printf '%s\n' "addr add 100.64.$i.2/24 dev wan" "link set wan up" "route add default via 100.64.$i.1" | ip -n "$P-$g" -batch -
  elif [[ $1 == connector && -e $RUN/shared ]]; then
    printf '%s\n' "addr add 100.64.1.3/24 dev wan" "link set wan up" "route add default via 100.64.1.1" | ip -n "$P-$g" -batch -; return
  else outside "$g" "$1"; fi
  ip -n "$P-inet" route replace "198.18.$i.0/24" via "$(outer4 "$1")"; }

case $CMD in
up)
  mkdir -p "${RUN%/*}"; [[ -d $RUN ]] && "$0" "$LAB" down
  mkdir "$RUN"; SAME=
  for s in client client2 connector; do put "nat.$s" port-restricted; put "epoch.$s" 0; put "wanip.$s" 0; done
  put lan.client 192.168.1; put lan.client2 192.168.2; put lan.connector 10.20.0
  while (($#)); do case $1 in
    --client-nat) put nat.client "$2"; shift;; --connector-nat) put nat.connector "$2"; shift;; --same-nat) SAME=1;;
    --client-cgn) put cgn.client "$2"; shift;; --shared-cgn) put cgn.client "$2"; : >"$RUN/shared"; shift;; --v6) : >"$RUN/v6";;
    *) die "option $1";; esac; shift; done
  trap 'rc=$?; [[ $rc -ne 0 ]] && { echo "natlab: up failed, cleaning" >&2; "$0" "$LAB" down; }' EXIT
  for n in inet relay relay2 cgw cgw2 ngw client connector resource; do ip netns add "$P-$n"; done
  for n in inet cgw cgw2 ngw; do base $n 1; done; for n in relay relay2 client connector resource; do base $n 0; done
  ip -batch - <<B
link add relay netns $P-inet type veth peer name eth0 netns $P-relay
link add relay2 netns $P-inet type veth peer name eth0 netns $P-relay2
link add w2 netns $P-inet type veth peer name wan netns $P-cgw2
$([[ -e $RUN/shared ]] || echo "link add w3 netns $P-inet type veth peer name wan netns $P-ngw")
link add eth1 netns $P-connector type veth peer name eth0 netns $P-resource
B
  if [[ -e $RUN/cgn.client ]]; then ip netns add "$P-cgn"; base cgn 1
    ip link add w1 netns "$P-inet" type veth peer name wan netns "$P-cgn"
    ip -n "$P-cgn" link add br0 type bridge forward_delay 0; subscriber cgw
    if [[ -e $RUN/shared ]]; then subscriber ngw; ip -n "$P-inet" link add w3 type bridge; fi
  else ip link add w1 netns "$P-inet" type veth peer name wan netns "$P-cgw"; fi
  ip -n "$P-inet" -batch - <<B
link set relay up
link set relay2 up
link set w1 up
link set w2 up
link set w3 up
addr add 203.0.113.1/28 dev relay
addr add 203.0.113.17/28 dev relay2
addr add 198.51.100.1/28 dev w1
addr add 198.51.100.17/28 dev w2
addr add 198.51.100.33/28 dev w3
route add blackhole 10.0.0.0/8
route add blackhole 192.168.0.0/16
route add blackhole 100.64.0.0/10
B
  printf '%s\n' "link set eth0 up" "addr add 203.0.113.10/28 dev eth0" "addr add 203.0.113.11/28 dev eth0" "route add default via 203.0.113.1" | ip -n "$P-relay" -batch -
  printf '%s\n' "link set eth0 up" "addr add 203.0.113.20/28 dev eth0" "route add default via 203.0.113.17" | ip -n "$P-relay2" -batch -
  for s in client client2 connector; do site $s; v6_site $s; done
  v6_relay
  plug client client 10
  if [[ $SAME ]]; then plug connector client 20; else plug connector connector 10; fi
  printf '%s\n' "link set eth1 up" "addr add 10.50.0.2/24 dev eth1" | ip -n "$P-connector" -batch -
  printf '%s\n' "link set eth0 up" "addr add 10.50.0.10/24 dev eth0" | ip -n "$P-resource" -batch -
  for s in client client2 connector; do apply_nat $s; done
  trap - EXIT ;;
down)
  for f in /run/netns/"$P"-*; do [[ -e $f ]] || continue; n=${f##*/}
    for p in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null || true; done
    ip netns del "$n" 2>/dev/null || rm -f "$f"; rm -rf "/etc/netns/$n"; done
  rm -rf "$RUN" ;;
ns) echo "$P-$1" ;;
nat) put "nat.$1" "$2"; apply_nat "$1"
  printf '%s\n' "addr flush dev br0 scope global" "addr add $(lan4 "$1").1/24 dev br0" | ip -n "$P-${GW[$1]}" -batch -
  v6_lan "$1"
  for f in "$RUN"/host.*; do read -r at n <"$f"; if [[ $at == "$1" ]]; then addr_host "${f##*/host.}"; fi; done ;;
blackhole)
  case $1 in
    sites) rules=$'iifname { "w1", "w2" } oifname "w3" meta l4proto udp drop\n    iifname "w3" oifname { "w1", "w2" } meta l4proto udp drop';;
    probes) rules=$'iifname { "w1", "w2" } oifname "w3" meta l4proto udp @th,64,4 3 drop\n    iifname "w3" oifname { "w1", "w2" } meta l4proto udp @th,64,4 3 drop';;
    relay|relay2) rules="iifname \"$1\" meta l4proto udp drop"$'\n'"    oifname \"$1\" meta l4proto udp drop";;
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
readdr) read -r s _ <"$RUN/host.$1"; put "host.$1" "$s $2"; addr_host "$1" ;;
family) [[ -e $RUN/v6 ]] || die "family: this lab was made without --v6"
  addr_host "$1"
  case $2 in 4) ip -n "$P-$1" -6 addr flush dev eth0 scope global;; 6) ip -n "$P-$1" -4 addr flush dev eth0 scope global;;
    both) ;; *) die "family $2";; esac ;;
named) named "$@" ;;
dns) dns "$1" ;;
relayaddr) ip -n "$P-relay" -4 addr flush dev eth0
  for a in "$@"; do ip -n "$P-relay" addr add "$a/28" dev eth0; done
  (($# == 0)) || ip -n "$P-relay" route replace default via 203.0.113.1 ;;
rebind) s=$1; put "epoch.$s" $(($(get "epoch.$s") + 1))
  if [[ ${2-} == newip ]]; then put "wanip.$s" $((($(get "wanip.$s") + 1) % 4))
    g=${GW[$s]}; [[ ! -e $RUN/cgn.$s ]] || g=cgn
    ip -n "$P-$g" addr flush dev wan scope global; outside "$g" "$s"
    ip -n "$P-inet" route replace "198.18.${IDX[$s]}.0/24" via "$(outer4 "$s")"; fi
  apply_nat "$s" ;;
link) read -r s _ <"$RUN/host.$1"; case $2 in
  off) ip -n "$P-$1" link set eth0 down;; on) addr_host "$1";;
  down|up) ip -n "$P-${GW[$s]}" link set "p-$1" "$2";; *) die "link $2";; esac ;;
hostmtu) ip -n "$P-$1" link set eth0 mtu "$2" ;;
mtu) ip -n "$P-inet" link set "w${IDX[$1]}" mtu "$2" ;;
udptimeout) for t in udp_timeout udp_timeout_stream; do
    x "${GW[$1]}" bash -c "echo $2 >/proc/sys/net/netfilter/nf_conntrack_$t"; done ;;
mappings) x "${GW[$1]}" conntrack -L -p udp --orig-dst "$2" 2>/dev/null | wc -l ;;
mapper) g=${GW[$1]}; i=${IDX[$1]}; pid=$RUN/mapper.$1.pid
  if [[ -e $pid ]]; then kill "$(cat "$pid")" 2>/dev/null || true; rm -f "$pid"; x "$g" nft delete table inet upnp; fi
  if [[ $2 == on ]]; then
    # miniupnpd serves no address that is reserved, as those of documentation are; this one exists in the lab only.
    ip -n "$P-$g" addr replace "45.45.45.$i/32" dev wan; ip -n "$P-inet" route replace "45.45.45.$i/32" via "$(outer4 "$1")"
    x "$g" nft -f - <<R
table inet upnp {
  chain pre { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
  chain post { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
  chain forward { type filter hook forward priority 0; jump miniupnpd; }
  chain miniupnpd {
  }
  chain prerouting_miniupnpd {
  }
  chain postrouting_miniupnpd {
  }
}
R
    printf '%s\n' ext_ifname=wan "ext_ip=45.45.45.$i" listening_ip=br0 ipv6_disable=yes secure_mode=yes system_uptime=no \
      "enable_natpmp=$([[ ${3-} == upnp ]] && echo no || echo yes)" upnp_table_name=upnp upnp_nat_table_name=upnp \
      uuid=6f2a4a4e-3f8a-4a2b-9a9a-0123456789ab "allow 1024-65535 $(lan4 "$1").0/24 1024-65535" \
      "deny 0-65535 0.0.0.0/0 0-65535" >"$RUN/mapper.$1.conf"
    x "$g" miniupnpd -f "$RUN/mapper.$1.conf" -P "$pid" >/dev/null 2>&1
  fi ;;
mapped) x "${GW[$1]}" nft list chain inet upnp prerouting_miniupnpd ;;
dad) read -r ns dev a < <(case $1 in relay) echo inet relay 2001:db8:9::66;;
      *) read -r s _ <"$RUN/host.$1"; echo "${GW[$s]} br0 2001:db8:${IDX[$s]}:100::66";; esac)
  probes=1; [[ $2 != tentative ]] || probes=10000
  x "$1" bash -c "cd /proc/sys/net/ipv6/conf/eth0; echo 1 >accept_dad; echo $probes >dad_transmits"
  if [[ $2 == failed ]]; then ip -n "$P-$ns" addr add "$a/64" dev "$dev" nodad
  else ip -n "$P-$ns" addr del "$a/64" dev "$dev" 2>/dev/null || true; fi
  ip -n "$P-$1" addr del "$a/64" dev eth0 2>/dev/null || true; ip -n "$P-$1" addr add "$a/64" dev eth0 ;;
nat64) ip -n "$P-$1" -4 addr flush dev eth0 scope global
  mkdir "$RUN/tayga"; printf '%s\n' "tun-device nat64" "ipv4-addr 198.18.64.1" "prefix 2001:db8:64::/96" \
    "dynamic-pool 198.18.64.0/24" "data-dir $RUN/tayga" >"$RUN/tayga.conf"
  x inet tayga -c "$RUN/tayga.conf" --mktun >/dev/null
  printf '%s\n' "link set nat64 up" "route add 198.18.64.0/24 dev nat64" "route add 2001:db8:64::/96 dev nat64" | ip -n "$P-inet" -batch -
  x inet tayga -c "$RUN/tayga.conf" --pidfile "$RUN/tayga.pid"
  printf '%s\n' "127.0.0.1 localhost" "2001:db8:64::203.0.113.10 relay.natlab" >"/etc/netns/$P-$1/hosts" ;; # as DNS64 would
relaybytes) x inet bash -c 'cat /proc/net/dev' | awk '$1=="relay:" { print $2 + $10 }' ;;
*) die "unknown command $CMD" ;;
esac
