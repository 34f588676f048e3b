package gameping

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

func javaAnswer(status string) []byte {
	body := binary.AppendUvarint([]byte{0}, uint64(len(status)))
	body = append(body, status...)
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

func kick(text string) []byte {
	units := utf16.Encode([]rune(text))
	answer := binary.BigEndian.AppendUint16([]byte{0xff}, uint16(len(units)))
	for _, unit := range units {
		answer = binary.BigEndian.AppendUint16(answer, unit)
	}
	return answer
}

func bedrockAnswer(nonce uint64, text string) []byte {
	answer := binary.BigEndian.AppendUint64([]byte{0x1c}, nonce)
	answer = binary.BigEndian.AppendUint64(answer, 7)
	answer = append(answer, rakNetMagic...)
	answer = binary.BigEndian.AppendUint16(answer, uint16(len(text)))
	return append(answer, text...)
}

func a2sAnswer() []byte {
	answer := append(slices.Clone(outOfBand), 'I', 17)
	answer = append(answer, "Vik^1ings\x00world\x00valheim\x00Valheim\x00"...)
	answer = append(answer, 0, 0, 3, 10, 0, 'd', 'l', 0, 1)
	return append(answer, "0.218.15\x00"...)
}

func mumbleAnswer(nonce uint64) []byte {
	answer := binary.BigEndian.AppendUint64([]byte{0, 1, 5, 735 & 0xff}, nonce)
	for _, n := range []uint32{4, 100, 558000} {
		answer = binary.BigEndian.AppendUint32(answer, n)
	}
	return answer
}

var (
	luantiAnswer    = append(slices.Clone(luantiID), 0, 1, 0, 3, 0xff, 0xdc, 0, 1, 0, 9)
	teamSpeakAnswer = append([]byte(teamSpeakMark), append([]byte{0, 0x65, 0x88, 1}, make([]byte, 20)...)...)
	quake3Answer    = append(slices.Clone(outOfBand), "statusResponse\n\\sv_hostname\\^1Are^7na\\sv_maxclients\\16\\version\\ioq3 1.36\n5 40 \"a\"\n0 12 \"b\"\n"...)
)

func TestParse_KnowsWhatEachGameSays(t *testing.T) {
	tcp := func(data []byte) (Game, bool) { game, ok, _ := parseJava(data); return game, ok }
	udp := func(data []byte) (Game, bool) { game, ok, _ := parseDatagram(data, 42); return game, ok }
	for name, c := range map[string]struct {
		parse func([]byte) (Game, bool)
		data  []byte
		want  Game
	}{
		"Java": {
			tcp, javaAnswer(`{"version":{"name":"1.21.4","protocol":769},"players":{"max":20,"online":2},"description":{"text":"§aHome","extra":[{"text":" of"},{"text":" us"}]}}`),
			Game{MinecraftJava, "Home of us", "1.21.4", 2, 20},
		},
		"Java without players": {tcp, javaAnswer(`{"description":"A server\u0007"}`), Game{MinecraftJava, "A server", "", -1, -1}},
		"Java 1.6":             {tcp, kick("§1\x0078\x001.6.4\x00Old\x003\x008"), Game{MinecraftJava, "Old", "1.6.4", 3, 8}},
		"Java beta":            {tcp, kick("Older§1§4"), Game{MinecraftJava, "Older", "", 1, 4}},
		"Bedrock": {
			udp, bedrockAnswer(42, "MCPE;Dedicated §lServer;800;1.21.80;1;10;123;Bedrock level;Survival;1;19132;19133;"),
			Game{MinecraftBedrock, "Dedicated Server", "1.21.80", 1, 10},
		},
		"A2S":       {udp, a2sAnswer(), Game{Source, "Vikings", "0.218.15", 3, 10}},
		"Quake":     {udp, quake3Answer, Game{Quake3, "Arena", "ioq3 1.36", 2, 16}},
		"Luanti":    {udp, luantiAnswer, Game{Luanti, "", "", -1, -1}},
		"TeamSpeak": {udp, teamSpeakAnswer, Game{TeamSpeak3, "", "", -1, -1}},
		"Mumble":    {udp, mumbleAnswer(42), Game{Mumble, "", "1.5.223", 4, 100}},
	} {
		if game, ok := c.parse(c.data); !ok || game != c.want {
			t.Errorf("%s: %+v, %v", name, game, ok)
		}
	}
	if game, ok := udp(bedrockAnswer(41, "MCPE;x;1;1;1;1")); ok {
		t.Errorf("an answer to somebody else's query is taken for one: %+v", game)
	}
}

func TestGame_IsBounded(t *testing.T) {
	game, ok := parseJavaStatus(fmt.Appendf(nil, `{"version":{"name":"\u001b[31m\u202e%s"},"players":{"max":-7,"online":99999999999}}`, strings.Repeat("é", 3*MaxText)))
	if n := len([]rune(game.Version)); !ok || n != MaxText || strings.ContainsAny(game.Version, "\x1b\u202e") || game.Players != -1 || game.MaxPlayers != -1 {
		t.Errorf("%d characters: %+v, %v", n, game, ok)
	}
}

func checkGame(t *testing.T, game Game) {
	for _, text := range []string{game.Name, game.Version} {
		if len([]rune(text)) > MaxText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
			t.Errorf("%q is not safe", text)
		}
	}
	if game.Players < -1 || game.MaxPlayers < -1 {
		t.Errorf("%+v", game)
	}
}

func FuzzParseJava(f *testing.F) {
	f.Add(javaAnswer(`{"version":{"name":"1.21"},"players":{"max":20,"online":2},"description":["a",{"text":"b"}]}`))
	f.Add(kick("§1\x0078\x001.6.4\x00Old\x003\x008"))
	f.Fuzz(func(t *testing.T, data []byte) {
		game, ok, more := parseJava(data)
		if ok && more || more && len(data) > maxJavaAnswer+5 {
			t.Errorf("ok %v, more %v after %d bytes", ok, more, len(data))
		}
		checkGame(t, game)
	})
}

func FuzzParseDatagram(f *testing.F) {
	for _, seed := range [][]byte{
		bedrockAnswer(42, "MCPE;a;1;1;1;1"), a2sAnswer(), quake3Answer, luantiAnswer, teamSpeakAnswer, mumbleAnswer(42),
		append(slices.Clone(outOfBand), "A1234"...), append(slices.Clone(outOfBand), "m127.0.0.1\x00a\x00b\x00c\x00d\x00\x01\x02"...),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		game, _, next := parseDatagram(data, 42)
		if len(next) > 64 {
			t.Errorf("%d bytes are sent in response", len(next))
		}
		checkGame(t, game)
	})
}
