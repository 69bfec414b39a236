/* Internal to core. */
#ifndef IMGTK_CORE_CREDENTIALS_H
#define IMGTK_CORE_CREDENTIALS_H

/*
 * Takes "user:password@" out of every URL in the text. Every message and every name that is shown goes through here: a
 * user's name alone can be a key too (https://TOKEN@host/).
 */
void credentials_hide(char *text);

#endif
