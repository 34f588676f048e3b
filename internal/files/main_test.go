package files_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv(readAsUser); ok {
		_, err := files.ReadSecret(path)
		fmt.Printf("%v\n%v\n", err, files.Exposure(path))
		return
	}
	goleak.VerifyTestMain(m)
}

// readAsUser, in the environment, makes the test binary read the secret in this file, and
// print the error and the exposure.
const readAsUser = "FILES_TEST_READ_AS_USER"
