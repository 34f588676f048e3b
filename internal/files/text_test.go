package files_test

import (
	"encoding/binary"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// encodeUTF16 encodes ASCII text.
func encodeUTF16(text string, order binary.AppendByteOrder) string {
	var data []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		data = order.AppendUint16(data, unit)
	}
	return string(data)
}

func TestLine_ReadsWhatEditorsWrite(t *testing.T) {
	const secret = " correct  horse, pâté 🎮 "
	for name, data := range map[string]string{
		"no line break":               secret,
		"a line break":                secret + "\n",
		"line breaks of Windows":      secret + "\r\n\r\n",
		"line breaks of old Macs":     secret + "\r",
		"a mark":                      "\uFEFF" + secret,
		"a mark and Windows' breaks":  "\uFEFF" + secret + "\r\n",
		"a mark and a line before it": "\n\uFEFF" + secret + "\n",
	} {
		if got, err := files.Line("f", []byte(data)); err != nil || got != secret {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, data := range map[string]string{"nothing": "", "a mark": "\uFEFF", "line breaks": "\r\n\r\n"} {
		if got, err := files.Line("f", []byte(data)); err != nil || got != "" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestLine_NamesWhatItCannotRead(t *testing.T) {
	for name, test := range map[string]struct{ data, want string }{
		"PowerShell's":    {"\xff\xfe" + encodeUTF16("secret\r\n", binary.LittleEndian), "UTF-16"},
		"big endian":      {"\xfe\xff" + encodeUTF16("secret", binary.BigEndian), "UTF-16"},
		"without a mark":  {encodeUTF16("secret", binary.LittleEndian), "UTF-16"},
		"nor the other":   {encodeUTF16("secret", binary.BigEndian), "UTF-16"},
		"four bytes each": {"\xff\xfe\x00\x00s\x00\x00\x00", "UTF-32"},
		"Latin-1":         {"p\xe2t\xe9", "not in UTF-8"},
		"two lines":       {"first\r\nsecond\r\n", "more than one line"},
	} {
		if got, err := files.Line("secrets/file", []byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "secrets/file") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestRead_FindsEveryCertificateOfFilesThatWereJoined(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chain.pem")
	one := "\uFEFF" + strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "\n", "\r\n")
	create(t, path, one+one+one)
	data, err := files.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		count++
	}
	if count != 3 {
		t.Errorf("%d certificates", count)
	}
	if err := os.WriteFile(path, []byte("\xff\xfe"+encodeUTF16(one, binary.LittleEndian)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Read(path); err == nil || !strings.Contains(err.Error(), "UTF-16") {
		t.Errorf("UTF-16: %v", err)
	}
}
