package controlclient

import (
	"fmt"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// Refusal converts an error answer to a request for a control channel into the error
// that Options.Dial returns. Only the codes with which a panel says that the token was
// revoked or the device deleted are final. Everything else passes: a 401 may come from a
// proxy, and a panel whose database is being restored knows no device. err describes the
// answer and message is the panel's reason.
func Refusal(code types.ErrorCode, message string, err error) error {
	switch code {
	case types.CodeTokenRevoked:
		return &channel.FinalError{Code: channel.CloseTokenDead, Reason: message}
	case types.CodeDeviceDeleted:
		return &channel.FinalError{Code: channel.CloseDeleted, Reason: message}
	case types.CodeFeatureDisabled:
		return fmt.Errorf("%w: %w", channel.ErrFeatureOff, err)
	default:
		return err
	}
}
