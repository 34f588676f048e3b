package target

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// header is the first line of a table.
const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestScanSockets_FindsThoseOfThePorts(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the tables are of machines that write the lowest byte first")
	}
	const rest = " 00000000:00000000 00:00000000 00000000     0        0 590 1 00000000870dc9f3 100 0 0 10 0\n"
	for name, c := range map[string]struct {
		protocol types.Protocol
		table    string
		want     []string // Local addresses, and remote ones if connected.
	}{
		"listening": {types.ProtocolTCP, "" +
			"   0: 0100007F:63DD 00000000:0000 0A" + rest +
			"   1: 00000000:63DD 00000000:0000 0A" + rest +
			"  10: 0501A8C0:63DD 00000000:0000 0A" + rest,
			[]string{"127.0.0.1:25565", "0.0.0.0:25565", "192.168.1.5:25565"}},
		"at another port": {types.ProtocolTCP, "   0: 0100007F:63DE 00000000:0000 0A" + rest, nil},
		"over IPv6": {types.ProtocolTCP, "" +
			"   0: 00000000000000000000000000000000:63DD 00000000000000000000000000000000:0000 0A" + rest +
			"   1: 00000000000000000000000001000000:63DD 00000000000000000000000000000000:0000 0A" + rest +
			"   2: 0000000000000000FFFF00000100007F:63DD 00000000000000000000000000000000:0000 0A" + rest +
			"   3: B80D0120000000000000000005000000:63DD 00000000000000000000000000000000:0000 0A" + rest,
			[]string{"[::]:25565", "[::1]:25565", "127.0.0.1:25565", "[2001:db8::5]:25565"}},
		"before connections": {types.ProtocolTCP, "" +
			"   0: 00000000:0016 00000000:0000 0A" + rest +
			"   1: 0100007F:63DD 0100007F:D7F8 03" + rest +
			"   2: 0100007F:63DD 00000000:0000 0A" + rest +
			"   3: 0100007F:63DD 0100007F:D7F8 01" + rest +
			"nonsense that is not read\n",
			[]string{"127.0.0.1:25565"}},
		"bound, and connected": {types.ProtocolUDP, "" +
			"  123: 00000000:63DD 00000000:0000 07" + rest +
			"  124: 0100007F:63DD 0733337F:9C40 01" + rest,
			[]string{"0.0.0.0:25565", "127.0.0.1:25565 127.51.51.7:40000"}},
		"none": {types.ProtocolUDP, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			sockets := map[localPort][]socket{{c.protocol, 25565}: nil}
			if err := scanSockets(strings.NewReader(header+c.table), c.protocol, sockets); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range sockets[localPort{c.protocol, 25565}] {
				text := s.local.String()
				if s.remote.Port() != 0 {
					text += " " + s.remote.String()
				}
				got = append(got, text)
			}
			if !slices.Equal(got, c.want) || len(sockets) != 1 {
				t.Errorf("found %v, want %v, of the ports %v", got, c.want, slices.Collect(maps.Keys(sockets)))
			}
		})
	}
}

func TestScanSockets_ReportsWhatIsNoTable(t *testing.T) {
	for _, line := range []string{
		"x", "0: 0100007F:63DD", "0: 0100007F:63DD 00000000:0000 zz", "0: 0100007F 00000000:0000 0A", "0: 0100007F:GGGG 00000000:0000 0A",
		"0: 0100007:63DD 00000000:0000 0A", "0: 010000:63DD 00000000:0000 0A", "0: XX00007F:63DD 00000000:0000 0A", "0: 0100007F:63DD 0:0 0A",
		"0: 0100007F:63DD 00000000:0000 1A0A", strings.Repeat("0", 100_000),
	} {
		sockets := map[localPort][]socket{{types.ProtocolTCP, 25565}: nil}
		if err := scanSockets(strings.NewReader(header+line+"\n"), types.ProtocolTCP, sockets); err == nil {
			t.Errorf("%.50q is understood: %v", line, sockets)
		}
	}
}

func TestSocket_Receives(t *testing.T) {
	for local, c := range map[string]struct{ yes, no []string }{
		"127.0.0.1:1":     {[]string{"127.0.0.1"}, []string{"127.0.0.2", "::1", "192.168.1.5"}},
		"0.0.0.0:1":       {[]string{"127.0.0.1", "192.168.1.5"}, []string{"::1", "2001:db8::5"}},
		"[::]:1":          {[]string{"127.0.0.1", "192.168.1.5", "::1", "2001:db8::5", "fe80::5%eth0"}, nil},
		"[::1]:1":         {[]string{"::1"}, []string{"127.0.0.1", "2001:db8::5"}},
		"[2001:db8::5]:1": {[]string{"2001:db8::5"}, []string{"::1", "2001:db8::6"}},
		"[fe80::5]:1":     {[]string{"fe80::5%eth0"}, []string{"fe80::6%eth0"}},
	} {
		s := socket{local: netip.MustParseAddrPort(local)}
		for _, addr := range c.yes {
			if !s.receives(netip.MustParseAddr(addr)) {
				t.Errorf("%s does not receive what is sent to %s", local, addr)
			}
		}
		for _, addr := range c.no {
			if s.receives(netip.MustParseAddr(addr)) {
				t.Errorf("%s receives what is sent to %s", local, addr)
			}
		}
	}
}

func FuzzScanSockets(f *testing.F) {
	f.Add(header + "   0: 0100007F:63DD 00000000:0000 0A 00000000:00000000\n   1: 0100007F:63DD 0100007F:D7F8 01\n")
	f.Add(header + "   0: 0000000000000000FFFF00000100007F:63DD 00000000000000000000000000000000:0000 07\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, table string) {
		for _, protocol := range []types.Protocol{types.ProtocolTCP, types.ProtocolUDP} {
			at := localPort{protocol, 25565}
			sockets := map[localPort][]socket{at: nil}
			_ = scanSockets(strings.NewReader(table), protocol, sockets)
			for _, s := range sockets[at] {
				if s.local.Port() != 25565 || !s.local.IsValid() || s.local.Addr().Is4In6() {
					t.Fatalf("found %+v", s)
				}
			}
		}
	})
}
