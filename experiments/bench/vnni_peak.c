/* Dot products of 16 sums that do not wait for each other: the most that a core adds up in int8. */
#include <stdint.h>

void dots(int64_t rounds) {
    for (int64_t i = 0; i < rounds; i++) {
#define DOT(sum) "vpdpbusd %%zmm16,%%zmm17,%%zmm" #sum "\n\t"
        __asm__ volatile(DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10) DOT(11) DOT(12)
                             DOT(13) DOT(14) DOT(15)::
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    }
}
