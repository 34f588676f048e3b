import { useNotices } from '../ui/notices.js';
import { useExplain, type OwnMessages } from './errors.js';

/** Returns a function that carries out an act of a button without a form, and says in a notice why it failed. */
export function useErrorNotice(): (act: () => Promise<unknown>, messages?: OwnMessages) => Promise<void> {
  const { notify } = useNotices();
  const explain = useExplain();
  return async (act, messages) => {
    try {
      await act();
    } catch (error) {
      const { message, requestId } = explain(error, messages);
      notify(requestId ? `${message} (${requestId})` : message);
    }
  };
}
